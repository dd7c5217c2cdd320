"""Any image file as channels, by the reader that its content asks for."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from convit_ssl.data.augment.physical import tiff_spacing
from convit_ssl.data.listing.scenes import is_tile, read_tile
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import READERS, ImageFile, read_special, reads_by_path
from convit_ssl.data.reading.deep_photos import deep_avif
from convit_ssl.data.reading.pixels import MAX_PIXELS, Pixels, convert, read_raw
from convit_ssl.data.reading.planes import Planes, Scaled, chosen, planes_of, scaled
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.rendering import to_rgb
from convit_ssl.data.reading.tiff import read_tiff_planes
from convit_ssl.data.reading.tiff_pages import shown_file
from convit_ssl.data.reading.tiff_tags import is_geotiff, is_tiff
from convit_ssl.data.reading.upright import upright
from convit_ssl.data.reading.value_range import Reading


def read_channels(
    path: str, data: bytes | None, reading: Reading, max_pixels: int = MAX_PIXELS
) -> Scaled:
    """The channels that a collection is read with, (H, W, C) float32.

    Args:
        path: with the part that is meant, if any.
        data: the file's bytes; None lets a reader open the file.
        reading: channels, window and ranges.
        max_pixels: larger images are refused.

    Raises:
        ImageTooLargeError: the header announces more than ``max_pixels``.
        Exception: whatever the library raises for a damaged file.
    """
    return scaled(chosen(read_planes(path, data, reading, max_pixels), reading), reading)


def channel_names(path: str, reading: Reading) -> tuple[str, ...]:
    """Names of the channels that are read of an image; empty where the file gives none.

    Raises:
        Exception: whatever the library raises for a damaged file.
    """
    data = None if reads_by_path(path, reading) else read_bytes(path)
    return chosen(read_planes(path, data, reading), reading).names


def read_planes(
    path: str, data: bytes | None, reading: Reading, max_pixels: int = MAX_PIXELS
) -> Planes:
    """All channels of an image in the numbers of its file; see `read_channels`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        special = _special(path, data, reading)
        if special is not None:
            return special
        assert data is not None
        data = shown_file(data)
        if is_tiff(data):
            planes = _bands(path, data, reading) or read_tiff_planes(data, max_pixels)
            if planes is not None:
                if planes.spacing is None:
                    planes.spacing = tiff_spacing(data) if reading.physical else None
                return planes
        raw = read_raw(data, max_pixels)
        if raw is not None:
            planes = planes_of(raw)
            return upright(planes, data) if reading.exif_rotation else planes
        deep = deep_avif(data) if reading.native else None
        if deep is not None:
            return upright(deep, data) if reading.exif_rotation else deep
        return _eight_bits(data, reading, max_pixels)


def _special(path: str, data: bytes | None, reading: Reading) -> Planes | None:
    """An image of a format beyond Pillow and tifffile, or a tile of a scene of any format."""
    return read_tile(path, reading) if is_tile(path) else read_special(path, data, reading)


def _bands(path: str, data: bytes, reading: Reading) -> Planes | None:
    """A GeoTIFF's bands by rasterio, where that is installed; None of what it does not read."""
    reader = READERS["geotiff"]
    if not reader.installed or reading.reader != "auto" or not is_geotiff(data):
        return None
    planes: Planes = reader.module().read(ImageFile(path, data), "", reading)
    return planes


def _eight_bits(data: bytes, reading: Reading, max_pixels: int) -> Planes:
    with Image.open(io.BytesIO(data)) as opened:
        check_size(*opened.size, max_pixels)
        image = ImageOps.exif_transpose(opened) if reading.exif_rotation else opened
        if image.mode in ("1", "L"):
            return Planes(np.asarray(image.convert("L"))[..., None], ("grey",))
        if image.mode in ("LA", "RGBA"):
            names = ("grey", "A") if image.mode == "LA" else ("R", "G", "B", "A")
            return Planes(np.asarray(image), names)
        return Planes(np.asarray(convert(image)), ("R", "G", "B"))


def special_rgb(path: str, data: bytes | None, reading: Reading) -> Pixels | None:
    """8-bit RGB of a format that Pillow and tifffile do not read; None of any other."""
    planes = _special(path, data, reading)
    if planes is None:
        return None
    if reading.window == "file":
        reading = replace(reading, window=planes.window)
    return to_rgb(planes.raw(), reading)
