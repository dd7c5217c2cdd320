"""Which channels a collection has, and the range, mean and standard deviation of each.

Worked out from up to `SAMPLED` images spread evenly over the collection. That is enough, because
nothing follows from it that loses something: the ranges only scale, and nothing is cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.common_range import common_range
from convit_ssl.data.reading.planes import Planes, chosen, scaled
from convit_ssl.data.reading.value_range import Range, Reading, robust_range
from convit_ssl.errors import UserError

SAMPLED = 512
_PASSES = 2
_FLAT = 1e-6  # a channel that hardly varies is left as it is

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ChannelStatistics:
    """What the channels of a collection are.

    Attributes:
        reading: the one that was asked for, with channels and ranges filled in.
        names: of the channels; empty where the files give none.
        mean, std: of each channel, once its range is 0 to 1.
        images: how many were looked at.
    """

    reading: Reading
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int


def channel_statistics(
    paths: Sequence[str], reading: Reading, progress: Progress | None = None
) -> ChannelStatistics:
    """Look at the images of a collection.

    Args:
        paths: of all images.
        reading: with the channels that are asked for.
        progress: called with the number of images looked at and in all.

    Raises:
        UserError: no image can be read, or they have different numbers of channels.
    """
    step = max(1, -(-len(paths) // SAMPLED))
    sample = list(paths[::step])
    total = _PASSES * len(sample)
    ranges: list[dict[str, list[Range]]] = []
    counts: Counter[int] = Counter()
    names: tuple[str, ...] = ()
    reasons: list[str] = []
    for done, path in enumerate(sample, 1):
        try:
            planes = _read(path, reading)
            counts[planes.channels] += 1
            kept = chosen(planes, reading)
        except Exception as error:  # many kinds; it is reported when it is read for training
            reasons.append(f"{path}: {str(error) or type(error).__name__}")
            continue
        _collect(kept, ranges)
        names = names or kept.names
        if progress is not None:
            progress(done, total)
    if not ranges:
        raise UserError(f"none of the sampled images can be read as channels; {reasons[0][:300]}")
    if len(counts) > 1 and not isinstance(reading.channels, tuple):
        found = " and ".join(f"{n:,} with {c}" for c, n in counts.most_common())
        raise UserError(
            f"the images have different numbers of channels ({found} of {sum(counts.values()):,} "
            "sampled); choose channels that all of them have, such as data.channels=[1,2,3]"
        )
    full = _completed(reading, ranges, names, counts)
    mean, std, images = _moments(sample, full, progress)
    return ChannelStatistics(full, names, mean, std, images)


def _read(path: str, reading: Reading) -> Planes:
    by_path = reads_by_path(path, reading)
    return read_planes(path, None if by_path else read_bytes(path), reading)


def _collect(planes: Planes, ranges: list[dict[str, list[Range]]]) -> None:
    """Add the range of each channel of one image, by kind of number."""
    for number in range(planes.channels):
        if number == len(ranges):
            ranges.append({})
        raw = planes.channel(number)
        kind = "8 bits" if raw.values.dtype == np.uint8 else raw.kind
        extent = (0.0, 255.0) if kind == "8 bits" else robust_range(raw)
        if extent is not None:
            ranges[number].setdefault(kind, []).append(extent)


def _completed(
    reading: Reading,
    ranges: list[dict[str, list[Range]]],
    names: tuple[str, ...],
    counts: Counter[int],
) -> Reading:
    channels = reading.channels
    if not isinstance(channels, tuple):
        channels = tuple(range(1, len(ranges) + 1))
    whole = reading.channels == "all" or (reading.channels is None and len(counts) == 1)
    given = reading.channel_ranges
    return replace(
        reading,
        channels=channels,
        file_channels=counts.most_common(1)[0][0] if whole else 0,
        channel_ranges=given or tuple(_common(found) for found in ranges),
    )


def _common(found: dict[str, list[Range]]) -> Range:
    """One range for all images of a channel; of several kinds of number, what holds them all."""
    pairs = [
        (0.0, 255.0) if kind == "8 bits" else common_range(kind, extents)
        for kind, extents in found.items()
    ]
    low, high = min((p[0] for p in pairs), default=0.0), max((p[1] for p in pairs), default=1.0)
    return (low, high) if low < high else (low, low + 1.0)


def _moments(
    sample: Sequence[str], reading: Reading, progress: Progress | None
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation of each channel, every image with the same weight."""
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    for done, path in enumerate(sample, 1):
        try:
            values = scaled(chosen(_read(path, reading), reading), reading).astype(np.float64)
        except Exception:
            continue
        first.append(values.mean(axis=(0, 1)))
        second.append((values**2).mean(axis=(0, 1)))
        if progress is not None:
            progress(len(sample) + done, 2 * len(sample))
    if not first:
        raise UserError("none of the sampled images has the requested channels")
    mean = np.mean(first, axis=0)
    spread = np.sqrt(np.maximum(np.mean(second, axis=0) - mean**2, 0.0))
    std = np.where(spread > _FLAT, spread, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist()), len(first)
