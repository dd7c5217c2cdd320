"""Rectangles of large images: slides, scenes, and pyramids of levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import Values, check_size

_NEAR = 1.01  # a level within a hundredth of what is asked for is taken as it is


class Scene(ABC):
    """A large image, of which rectangles are read at a chosen scale.

    Args:
        height, width: in pixels of the full image.
        spacing: (down, across) of its pixel in mm; None where the file does not say.
        downsamples: of the levels, from 1 for the full image upwards.
    """

    def __init__(
        self,
        height: int,
        width: int,
        spacing: tuple[float, float] | None = None,
        downsamples: Sequence[float] = (1.0,),
    ) -> None:
        self.height, self.width = height, width
        self.spacing = spacing
        self.downsamples = [float(each) for each in downsamples]

    @abstractmethod
    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle in the pixels of a level, which lies within it."""

    def region(self, x: int, y: int, width: int, height: int, scale: float = 1.0) -> Planes:
        """A rectangle of the full image, at 1/scale of its size: (height / scale, width / scale).

        Read from the coarsest level that is fine enough, and averaged down from there.

        Args:
            x: of its corner, in pixels of the full image.
            y: likewise.
            width: of the rectangle, likewise; it lies within the image.
            height: likewise.
            scale: 1 or more.
        """
        level = max(n for n, each in enumerate(self.downsamples) if each <= scale * _NEAR)
        down = self.downsamples[level]
        size = max(1, round(width / scale)), max(1, round(height / scale))
        own = max(1, round(width / down)), max(1, round(height / down))
        check_size(*own)
        own = (min(own[0], max(1, int(self.width / down))),
               min(own[1], max(1, int(self.height / down))))  # fmt: skip
        left = min(round(x / down), max(0, int(self.width / down) - own[0]))
        top = min(round(y / down), max(0, int(self.height / down) - own[1]))
        planes = self.at_level(level, left, top, *own)
        spacing = self.spacing
        if spacing is not None:
            spacing = spacing[0] * height / size[1], spacing[1] * width / size[0]
        return resized(replace(planes, spacing=spacing), size)

    def interest(self, longest: int = 1024) -> Any:
        """(h, w) bool, a small picture of where there is something; None for everywhere."""
        return None


class WholeScene(Scene):
    """An image that is in memory as a whole."""

    def __init__(self, planes: Planes) -> None:
        super().__init__(planes.values.shape[0], planes.values.shape[1], planes.spacing)
        self.planes = planes

    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle."""
        box = (slice(y, y + height), slice(x, x + width))
        valid = None if self.planes.valid is None else self.planes.valid[box]
        return replace(self.planes, values=self.planes.values[box], valid=valid)


def resized(planes: Planes, size: tuple[int, int]) -> Planes:
    """The image at another (width, height): the mean of the pixels where it becomes smaller."""
    if planes.values.shape[1::-1] == size:
        return planes
    valid = planes.valid
    if valid is not None:
        shares = _resized(np.atleast_3d(valid).astype(np.uint8) * np.uint8(255), size) >= 128
        valid = shares[..., 0] if valid.ndim == 2 else shares
    return replace(planes, values=_resized(planes.values, size), valid=valid)


def _resized(values: Values, size: tuple[int, int]) -> Values:
    wide = values if values.dtype in (np.uint8, np.uint16, np.float32) else values.astype(float)
    smaller = size[0] <= values.shape[1] and size[1] <= values.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    out = [
        cv2.resize(np.ascontiguousarray(wide[..., n]), size, interpolation=how)
        for n in range(values.shape[-1])
    ]
    made = np.stack(out, axis=-1)
    if made.dtype == values.dtype:
        return made
    return (np.rint(made) if values.dtype.kind in "ui" else made).astype(values.dtype)
