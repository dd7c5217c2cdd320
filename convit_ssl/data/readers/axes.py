"""Axes of stacks: which of them are images of their own, and which are channels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convit_ssl.data.reading.raw_image import KINDS, ImageHeader, Values
from convit_ssl.errors import UserError

_INNER = ("y", "x", "c", "s")
_FORMS = (
    "all, z, t, page or series, each also every n-th, such as z:4; z:channels reads the planes "
    "along z as channels; level:2 reads a lower level of a pyramid"
)


@dataclass(frozen=True)
class Wanted:
    """What ``data.parts`` asks of a stack.

    Attributes:
        steps: axis -> every n-th plane along it.
        every: whether all axes are spread.
        channels: axes whose planes are channels.
        level: of a pyramid; 0 is the full image.
        series: whether all images of a file of several are read.
    """

    steps: dict[str, int] = field(default_factory=dict)
    every: bool = False
    channels: tuple[str, ...] = ()
    level: int = 0
    series: bool = False


def parse_axes(spec: str) -> Wanted:
    """``z:4,t`` and the like.

    Raises:
        UserError: something else.
    """
    steps: dict[str, int] = {}
    channels: list[str] = []
    level, every, series = 0, False, False
    for one in spec.split(","):
        name, _, value = one.strip().partition(":")
        name = {"pages": "page", "frame": "t"}.get(name, name)
        if name == "level" and value.isdigit():
            level = int(value)
        elif name in ("z", "t", "page") and value == "channels":
            channels.append(name)
        elif name in ("z", "t", "page", "all", "series") and (not value or value.isdigit()):
            every, series = every or name == "all", series or name == "series"
            if name in ("z", "t", "page"):
                steps[name] = max(1, int(value or 1))
        else:
            raise UserError(f"data.parts={spec}: for stacks, give {_FORMS}")
    return Wanted(steps, every, tuple(channels), level, series)


@dataclass(frozen=True)
class Axes:
    """The axes of an array.

    Attributes:
        names: y, x, c (channels), s (samples of a pixel), z, t, page.
        shape: sizes, in the same order.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]

    def has(self, name: str) -> bool:
        """Whether there is such an axis."""
        return name in self.names

    def size(self, name: str) -> int:
        """Along an axis; 1 if there is none."""
        return self.shape[self.names.index(name)] if name in self.names else 1

    @property
    def stacked(self) -> list[str]:
        """Axes along which the planes may be images."""
        return [name for name in self.names if name not in _INNER]

    def places(self, wanted: Wanted, path: str) -> dict[str, range]:
        """The places that are read along each axis that is spread.

        Raises:
            UserError: an axis that is not there.
        """
        asked = [*wanted.steps, *wanted.channels]
        missing = [name for name in asked if not any(s.startswith(name) for s in self.stacked)]
        if missing:
            there = ", ".join(f"{n}={self.size(n)}" for n in self.stacked) or "none"
            raise UserError(f"data.parts: {path} has no axis {missing[0]!r}; it has {there}")
        return {
            name: range(0, self.size(name), wanted.steps.get(name, 1))
            for name in self.stacked
            if name not in wanted.channels
            and self.size(name) > 1
            and (wanted.every or name in wanted.steps)
        }

    def chosen(self, fields: dict[str, str]) -> dict[str, int | None]:
        """The place along each axis but y and x; None where its planes are channels.

        Raises:
            ValueError: no such plane.
        """
        found: dict[str, int | None] = {}
        for name, size in zip(self.names, self.shape, strict=True):
            if name in ("c", "s") or fields.get(name) == "channels":
                found[name] = None
            elif name not in ("y", "x"):
                # What is not asked for: the middle of a volume, the first of anything else.
                place = int(fields.get(name, size // 2 if name == "z" else 0))
                if not 0 <= place < size:
                    raise ValueError(f"there are {size} planes along {name}, and no plane {place}")
                found[name] = place
        return found

    def count(self, fields: dict[str, str]) -> int:
        """How many channels a plane has."""
        chosen = self.chosen(fields)
        sizes = [self.size(name) for name, place in chosen.items() if place is None]
        return int(np.prod(sizes, dtype=int))

    def to_planes(self, values: Values, chosen: dict[str, int | None]) -> Values:
        """(H, W, C) of an array in which axes without channels may have been cut to one place."""
        order = [n for n, place in chosen.items() if place is None]
        index: list[int | slice] = []
        for position, name in enumerate(self.names):
            place = chosen.get(name)
            if place is None:
                index.append(slice(None))
            else:
                index.append(place if values.shape[position] == self.shape[position] else 0)
        kept = [n for n in self.names if n in ("y", "x") or n in order]
        values = values[tuple(index)].transpose([kept.index(n) for n in ("y", "x", *order)])
        return values.reshape(values.shape[0], values.shape[1], -1)


def planar_header(height: int, width: int, channels: int, dtype: np.dtype[Any]) -> ImageHeader:
    """The header of an image with this number of channels."""
    kind = "8 bits" if dtype == np.uint8 else KINDS.get(dtype.kind, "float")
    mode = {"float": "F", "8 bits": "L"}.get(kind, "I;16")
    return ImageHeader(height, width, channels == 1, kind, mode if channels == 1 else "RGB")
