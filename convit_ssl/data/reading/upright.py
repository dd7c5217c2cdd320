"""Photographs turned upright as their EXIF entry says, in any depth."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from convit_ssl.data.reading.planes import Planes

ORIENTATION = 0x0112  # of EXIF
_EXIF = b"Exif\0\0"  # how its block begins in a JPEG
_SEARCHED = 65536


def upright(planes: Planes, data: bytes) -> Planes:
    """A photograph of more than 8 bits turned as its EXIF entry says.

    By numpy: Pillow's own turn of 16-bit images keeps one byte of each value.
    """
    return _turned_planes(planes, orientation_of_file(data))


def turned_as(planes: Planes, image: Image.Image) -> Planes:
    """The planes turned as the EXIF entry of an opened image says."""
    return _turned_planes(planes, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """The EXIF entry of an opened image; 1 of TIFF, which is turned as it is loaded."""
    return 1 if image.format == "TIFF" else int(image.getexif().get(ORIENTATION, 1))


def orientation_of_file(data: bytes) -> int:
    """The EXIF entry of a file, also of a JPEG of more bits than Pillow opens."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return orientation_of(image)
    except UnidentifiedImageError:
        place = data.find(_EXIF, 0, _SEARCHED)
        if place < 0:
            return 1
        exif = Image.Exif()
        exif.load(data[place : place + _SEARCHED])
        return int(exif.get(ORIENTATION, 1))


def _turned_planes(planes: Planes, turn: int) -> Planes:
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
