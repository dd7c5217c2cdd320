"""Photographs turned upright as their EXIF entry says, in any depth."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.data.planes import Planes

_ORIENTATION = 0x0112  # of EXIF


def upright(planes: Planes, data: bytes) -> Planes:
    """A photograph of more than 8 bits turned as its EXIF entry says.

    By numpy: Pillow's own turn of 16-bit images keeps one byte of each value.
    """
    with Image.open(io.BytesIO(data)) as image:
        return turned_as(planes, image)


def turned_as(planes: Planes, image: Image.Image) -> Planes:
    """The planes turned as the EXIF entry of an opened image says."""
    turn = 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))
    values, valid = planes.values, planes.valid
    if turn not in range(2, 9):
        return planes
    return replace(
        planes,
        values=_turned(values, turn),
        valid=None if valid is None else _turned(valid, turn),
    )


def _turned(values: Any, orientation: int) -> Any:
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 7, 8):
        values = values[::-1] if orientation in (7, 8) else values[:, ::-1]
    if orientation in (3, 4, 6, 7):
        values = values[:, ::-1] if orientation in (6, 7) else values[::-1]
    return np.ascontiguousarray(values)
