"""Images of any number of channels, in the numbers of their files; and as scaled float arrays.

A `Planes` is what a reader delivers. `scaled` makes of it what a network of n channels takes:
float32 in which 0 and 1 are the ends of each channel's range over the collection. Nothing is cut
off, unless a window is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convit_ssl.data.reading.raw_image import RawImage, Values
from convit_ssl.data.reading.value_range import Range, Reading, ends, robust_range
from convit_ssl.errors import UserError

Scaled = npt.NDArray[np.float32]
MOST_CHANNELS = 64
ALPHA = "A"


@dataclass
class Planes:
    """One image of any number of channels.

    Attributes:
        values: (H, W, C) in the file's own type.
        names: of the channels; empty where the file gives none.
        valid: (H, W), or (H, W, C) where the channels differ; False where the file says that there
            is no data. None if the file does not say.
        inverted: whether the smallest value is white.
        window: the (black, white) that the file itself suggests for display.
        spacing: (down, across), of a pixel in millimetres; None where the file does not say.
    """

    values: Values
    names: tuple[str, ...] = ()
    valid: npt.NDArray[np.bool_] | None = None
    inverted: bool = False
    window: Range | None = None
    spacing: tuple[float, float] | None = None

    @property
    def channels(self) -> int:
        """How many there are."""
        return int(self.values.shape[-1])

    def channel(self, number: int) -> RawImage:
        """One channel as a grey image; the first is 0."""
        valid = self.valid_of(number)
        return RawImage(self.values[..., number], inverted=self.inverted, valid=valid)

    def valid_of(self, channels: int | slice | list[int]) -> npt.NDArray[np.bool_] | None:
        """Where there is data in one channel or in several."""
        return self.valid if self.valid is None or self.valid.ndim == 2 else (
            self.valid[..., channels]
        )  # fmt: skip

    def raw(self) -> RawImage:
        """As grey or RGB.

        Raises:
            ValueError: another number of channels.
        """
        if self.channels == 1:
            return self.channel(0)
        alpha = (
            self.values[..., -1]
            if self.channels in (2, 4) and self.names[-1:] == (ALPHA,)
            else None
        )
        colours = self.channels - (alpha is not None)
        if colours not in (1, 3):
            raise ValueError(
                f"it has {self.channels} channels; read all of them with data.channels=all, or "
                "three with data.channels=[1,2,3]"
            )
        values = self.values[..., :colours] if colours == 3 else self.values[..., 0]
        valid = self.valid_of(slice(3) if colours == 3 else 0)
        return RawImage(np.ascontiguousarray(values), alpha, False, self.inverted, valid)


def planes_of(raw: RawImage) -> Planes:
    """A grey or RGB image as channels; transparency, where there is any, is one of its own."""
    grey = raw.values.ndim == 2
    values = raw.values[..., None] if grey else raw.values
    names: tuple[str, ...] = ("grey",) if grey else ("R", "G", "B")
    if raw.alpha is not None and raw.alpha.dtype.kind != "b":
        values = np.concatenate([values, raw.alpha[..., None].astype(values.dtype)], axis=-1)
        names = (*names, ALPHA)
    return Planes(values, names, raw.valid, raw.inverted)


def parse_channels(value: Any) -> tuple[str | int, ...] | str | None:
    """``data.channels`` as written: None, "all", or numbers from 1 on and names.

    Raises:
        UserError: something else.
    """
    if value is None or value == "all":
        return None if value is None else "all"
    parts = value.split(",") if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, int) else parts
    if isinstance(parts, Sequence) and parts:
        found = tuple(int(p) if str(p).strip().isdigit() else str(p).strip() for p in parts)
        if all(found) and len(set(found)) == len(found) and len(found) <= MOST_CHANNELS:
            return found
    raise UserError(
        f"data.channels={value}: give all, or up to {MOST_CHANNELS} different numbers (the first "
        "channel is 1) or names, such as [1,2,3,4] or [red,nir]"
    )


def chosen(planes: Planes, reading: Reading) -> Planes:
    """The channels that are asked for, in that order.

    Raises:
        ValueError: the image has no such channel, or another number than the collection.
    """
    wanted = reading.channels
    if reading.file_channels not in (0, planes.channels):
        raise ValueError(
            f"it has {planes.channels} channels, and the collection {reading.file_channels}"
        )
    if wanted is None or isinstance(wanted, str):
        keep = [
            place
            for place in range(planes.channels)
            if wanted == "all" or planes.names[place : place + 1] != (ALPHA,)
        ]
    else:
        keep = [_place(planes, one) for one in wanted]
    names = tuple(planes.names[place] for place in keep) if planes.names else ()
    return Planes(
        planes.values[..., keep], names, planes.valid_of(keep), planes.inverted, planes.window,
        planes.spacing,
    )  # fmt: skip


def _place(planes: Planes, wanted: str | int) -> int:
    if isinstance(wanted, int):
        if wanted > planes.channels:
            raise ValueError(f"it has {planes.channels} channels, so there is no channel {wanted}")
        return wanted - 1
    names = [name.lower() for name in planes.names]
    if wanted.lower() not in names:
        known = f"they are {', '.join(planes.names)}" if names else "the file names none"
        raise ValueError(f"it has no channel {wanted!r} ({known})")
    return names.index(wanted.lower())


def scaled(planes: Planes, reading: Reading) -> Scaled:
    """(H, W, C) float32: 0 and 1 are the ends of each channel's range.

    The range is the window that is asked for, that of the collection, or else the image's own.
    Only a window cuts off what lies outside. NaN and "no data" become 0.

    Args:
        planes: with the channels chosen.
        reading: window and ranges.
    """
    window = planes.window if reading.window == "file" else reading.window
    ranges = reading.channel_ranges
    if ranges is not None and len(ranges) != planes.channels:
        raise ValueError(f"it has {planes.channels} channels, and {len(ranges)} are expected")
    out = np.empty(planes.values.shape, np.float32)
    for number in range(planes.channels):
        raw = planes.channel(number)
        if isinstance(window, tuple) and raw.values.dtype != np.uint8:
            low, high = window
        elif ranges is not None:
            low, high = ranges[number]
        elif raw.values.dtype == np.uint8:
            low, high = 0.0, 255.0
        else:
            low, high = ends(raw.kind, robust_range(raw))
        size = (high - low) or 1.0
        out[..., number] = (raw.values.astype(np.float64) - low) / size
    if planes.inverted:
        np.subtract(1.0, out, out=out)
    if isinstance(window, tuple):
        np.clip(out, 0.0, 1.0, out=out)
    lost = ~np.isfinite(out)
    if lost.any():
        out[lost] = 0.0
    if planes.valid is not None:
        out[~planes.valid] = 0.0
    return out
