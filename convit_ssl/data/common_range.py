"""One range of values for a whole collection, and whether it does for all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convit_ssl.data.value_range import Range, Reading, ends, white_of

_FAINT = 16  # an image whose white is so many times darker than the collection's is nearly black
_LEAST_PEAK = 128  # a darker one is an empty tile rather than another depth
_CLUSTER = 2 / 3  # share of the faint images that have the same number of bits
_OTHERS = 0.05  # share of all images that a second depth has
_FEW = 100  # of so many images one may lie outside the range of the others
_ALONE = 10  # of fewer images, none may


def judge(ranges: Mapping[str, Sequence[Range]]) -> tuple[Reading, tuple[str, ...], dict[str, str]]:
    """The ranges of a collection, what to know of them, and where no one range does.

    Args:
        ranges: by kind of number, the (lowest, highest) value of each image.

    Returns:
        The ranges; warnings in sentences; by kind, why two depths do not go together.
    """
    chosen: dict[str, Range] = {kind: common_range(kind, found) for kind, found in ranges.items()}
    reading = Reading(
        white_level=int(chosen["unsigned"][1]) if "unsigned" in chosen else 0,
        signed_range=_proper(chosen.get("signed")),
        float_range=_proper(chosen.get("float")),
    )
    warnings: list[str] = []
    mixed: dict[str, str] = {}
    for kind, found in ranges.items():
        said, serious = _depths(kind, found, chosen[kind])
        if said is None:
            continue
        if serious:
            mixed[kind] = said
        warnings.append(said)
    return reading, tuple(warnings), mixed


def _proper(found: Range | None) -> Range | None:
    return found if found is not None and found[0] < found[1] else None


def common_range(kind: str, found: Sequence[Range]) -> Range:
    """What becomes black and white for all images.

    From ten images on, one in a hundred, and one at least, does not decide: of unsigned integers
    an image that needs more is scaled by itself, of the others what lies far outside is cut off.

    Args:
        kind: ``unsigned``, ``signed`` or ``float``.
        found: the (lowest, highest) value of each image.
    """
    lows, highs = (np.sort(np.array(side)) for side in zip(*found, strict=True))
    out = max(1, len(found) // _FEW) if len(found) >= _ALONE else 0
    low, high = float(lows[out]), float(highs[-1 - out])
    if kind != "unsigned":
        span = (high - low) / 2
        low = float(lows[lows >= low - span][0])
        high = float(highs[highs <= high + span][-1])
    return ends(kind, (low, high))


def _depths(kind: str, found: Sequence[Range], chosen: Range) -> tuple[str | None, bool]:
    """What to say of images that are nearly black in a common range, and whether to refuse."""
    option = {"unsigned": "data.white_level", "signed": "data.signed_range"}.get(
        kind, "data.float_range"
    )
    low, high = chosen
    size = high - low
    width = np.array([_own_size(kind, extent) for extent in found])
    peaks = np.array([extent[1] for extent in found])
    if kind == "unsigned":
        faint = (width * _FAINT <= size + _FAINT) & (peaks >= _LEAST_PEAK)
        beyond = width > size
    else:
        faint = (width > 0) & (width * _FAINT <= size)
        beyond = (np.array([e[0] for e in found]) < low - size) | (peaks > high + size)
    count, total = int(faint.sum()), len(found)
    parts = [f"{total:,} images hold {_NAMES[kind]}"]
    if kind == "unsigned" and beyond.any() and (width[beyond] > _FAINT * size / 2).any():
        parts.append(
            f"{int(beyond.sum()):,} of them go beyond the white of the others ({high:,.0f}) and "
            "are scaled by themselves"
        )
    elif beyond.any():
        parts.append(f"{int(beyond.sum()):,} of them lie far outside and are cut off there")
    if count:
        parts.append(
            f"{count:,} of them would be nearly black or flat in the common range {low:,.6g} to "
            f"{high:,.6g} (the largest of them goes up to {peaks[faint].max():,.6g})"
        )
    if len(parts) == 1:
        return None, False
    text = "; ".join(parts)
    if _two_depths(width, faint, size):
        return (
            f"{text}. These are two depths in one collection. Bring them to the same depth, keep "
            f"them in two collections, or say which range is meant with {option}="
            f"{_example(kind, chosen)}",
            True,
        )
    return f"{text}. Another range: {option}={_example(kind, chosen)}", False


_NAMES = {
    "unsigned": "integers of more than 8 bits",
    "signed": "signed integers",
    "float": "floating point",
}


def _own_size(kind: str, extent: Range) -> float:
    return float(white_of(extent[1])) if kind == "unsigned" else extent[1] - extent[0]


def _two_depths(width: Any, faint: Any, size: float) -> bool:
    """Whether faint images are alike, and nothing lies between them and the others."""
    count, total = int(faint.sum()), len(width)
    if count < max(2, _OTHERS * total) or total - count < 2:
        return False
    bits = np.round(np.log2(np.maximum(width, 1e-30)))
    own = bits[faint]
    values, counts = np.unique(own, return_counts=True)
    between = ~faint & (width * 4 <= size) & (bits > values[-1])
    return bool(counts.max() >= _CLUSTER * count and not between.any())


def _example(kind: str, chosen: Range) -> str:
    low, high = chosen
    return f"{high:.0f}" if kind == "unsigned" else f"[{low:g},{high:g}]"
