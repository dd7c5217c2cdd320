"""Crops by physical size: the square of an image, in mm, in which all its crops lie.

A photograph's crops are shares of the image. Where files say how large a pixel is, as microscopes,
slide scanners, CT and satellites do, the same share of two images may be of another scale. With
``crops.physical`` every image is first cut to a square of that size, at a random place in training
and in the middle in evaluation; views are shares of the square.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.data.notes import note_once
from convit_ssl.data.reading.raw_image import MAX_PIXELS
from convit_ssl.data.reading.rendering import to_rgb
from convit_ssl.data.reading.value_range import Pixels, Reading


@dataclass(frozen=True)
class Drawn:
    """What is read of an image this time.

    Attributes:
        path: of the image, or of the tile that was drawn in its place.
        seed: of the place of the square; None for the middle.
    """

    path: str
    seed: int | None = None

    def rgb(self, data: bytes | None, reading: Reading, max_pixels: int = MAX_PIXELS) -> Pixels:
        """8-bit RGB, cut to the square where there is a physical size.

        Raises:
            Exception: whatever the library raises for a damaged file.
        """
        from dataclasses import replace

        from convit_ssl.data.readers import reads_by_path
        from convit_ssl.data.reading.channel_reading import read_planes
        from convit_ssl.data.reading.pixels import decode_array

        if not reading.physical and not reads_by_path(self.path, reading):
            return decode_array(data or b"", None, max_pixels, reading)
        planes = read_planes(self.path, data, reading, max_pixels)
        if reading.window == "file":
            reading = replace(reading, window=planes.window)
        pixels = to_rgb(planes.raw(), reading)
        return self.cut(pixels, planes.spacing, reading) if reading.physical else pixels

    def cut(self, image: Any, spacing: tuple[float, float] | None, reading: Reading) -> Any:
        """The square of an (H, W, C) array.

        Args:
            image: the array.
            spacing: (down, across) of its pixel in mm, as the file says.
            reading: with the size of the square, and that of a pixel where the user gave one.

        Raises:
            ValueError: nobody says how large a pixel is.
        """
        if reading.pixel_size:
            spacing = (reading.pixel_size, reading.pixel_size)
        if spacing is None:
            raise ValueError(
                "the file does not say how large its pixels are, which crops.physical needs; give "
                "it by data.pixel_size, such as 0.5um"
            )
        sides = [max(1, round(reading.physical / size)) for size in spacing]
        if sides[0] > image.shape[0] or sides[1] > image.shape[1]:
            note_once("images that are smaller than crops.physical are used whole")
        rows, columns = (min(side, n) for side, n in zip(sides, image.shape, strict=False))
        free = image.shape[0] - rows, image.shape[1] - columns
        shares = (
            (0.5, 0.5) if self.seed is None else np.random.default_rng(self.seed).random(2).tolist()
        )
        top, left = (round(n * share) for n, share in zip(free, shares, strict=True))
        return np.ascontiguousarray(image[top : top + rows, left : left + columns])


def tiff_spacing(data: bytes) -> tuple[float, float] | None:
    """(down, across) of a TIFF's pixel in mm, where tifffile is installed and the file says so."""
    try:
        import tifffile

        from convit_ssl.data.readers.stack import spacing_of
    except ImportError:
        return None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return spacing_of(file)
    except Exception:  # odd tags: the pixels are what counts
        return None
