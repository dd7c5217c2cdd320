"""Bytes of an image file to 8-bit RGB, whatever the file holds.

One rule per kind of image:

* animated and multi-page files: the first frame, of TIFF the first page that is neither a thumbnail
  nor a mask;
* transparency: laid over white, as a viewer shows it;
* 8 bits or fewer, whether grey, palette, CMYK or YCbCr: converted by Pillow;
* everything else (integers of 16 and 32 bits, signed integers, floating point, in grey or in
  colour): read as written by `raw_image` and `tiff` of this package, then scaled by the rule of
  `value_range`. A collection's `Reading` keeps its images comparable;
* what would not come out right is refused by name.

EXIF orientation is left alone by default, as in the published ImageNet pipelines, torchvision's
ImageFolder and timm; TIFF is always upright, as Pillow loads it.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from convit_ssl.data.listing.part_names import split_part
from convit_ssl.data.listing.scenes import is_tile, read_tile, tile_header
from convit_ssl.data.loading.storage import openable, read_bytes
from convit_ssl.data.readers import (
    START,
    ImageFile,
    choose_reader,
    read_special,
    reader_by_path,
    reads_by_path,
    special_header,
)
from convit_ssl.data.reading.deep_photos import (
    SEARCHED,
    deep_jpeg_header,
    is_deep_jpeg2000,
    read_deep_jpeg,
    read_jpeg2000,
)
from convit_ssl.data.reading.eight_bits import convert, reduction
from convit_ssl.data.reading.netpbm import is_netpbm, netpbm_header, read_netpbm
from convit_ssl.data.reading.raw_image import (
    MAX_PIXELS,
    ImageHeader,
    ImageTooLargeError,
    RawImage,
    check_size,
    is_png,
    png_header,
    read_other,
    read_png,
)
from convit_ssl.data.reading.rendering import to_image
from convit_ssl.data.reading.tiff import read_tiff
from convit_ssl.data.reading.tiff_pages import shown_file
from convit_ssl.data.reading.tiff_tags import is_tiff, tiff_header
from convit_ssl.data.reading.upright import ORIENTATION, orientation_of, orientation_of_file
from convit_ssl.data.reading.value_range import Pixels, Reading, robust_range

__all__ = [
    "MAX_PIXELS",
    "ImageTooLargeError",
    "Pixels",
    "Reading",
    "convert",
    "decode_array",
    "decode_image",
    "image_header",
    "image_range",
    "read_raw",
]

_JPEG_MAGIC = b"\xff\xd8\xff"
_GREY_MODES = ("1", "L", "LA", "F")


def read_raw(data: bytes, max_pixels: int = MAX_PIXELS) -> RawImage | None:
    """The numbers of a file of more than 8 bits as they were written; None of any other.

    Raises:
        ImageTooLargeError: the header announces more than ``max_pixels``.
        ValueError: a kind of file that would not come out right, by name.
        Exception: whatever Pillow or tifffile raise for a damaged file.
    """
    if is_png(data):
        header = png_header(data)
        if header.kind == "8 bits":
            return None
        check_size(header.width, header.height, max_pixels)
        return read_png(data)
    if is_tiff(data):
        data = shown_file(data)
        tiff = tiff_header(io.BytesIO(data))
        if tiff.plain:
            return None
        check_size(tiff.width, tiff.height, max_pixels)
        return read_tiff(data, tiff)
    if data[:3] == _JPEG_MAGIC:
        deep = deep_jpeg_header(data)
        if deep is None:
            return None
        check_size(deep.width, deep.height, max_pixels)
        return read_deep_jpeg(data)
    if is_netpbm(data[:SEARCHED]):
        return read_netpbm(data, max_pixels)
    if is_deep_jpeg2000(data[:SEARCHED]):
        return read_jpeg2000(data, max_pixels)
    with Image.open(io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels)
        return read_other(image)


def decode_image(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    reading: Reading | None = None,
    side: int | None = None,
) -> Image.Image:
    """The image in ``data`` as Pillow RGB.

    Args:
        data: a whole file.
        max_pixels: larger images are refused.
        reading: what becomes black and white, and whether EXIF turns the image.
        side: pixels of the longer side that are enough, see `convert`; None keeps all.

    Raises:
        ImageTooLargeError: the header announces more than ``max_pixels``.
        Exception: whatever Pillow raises for a damaged file; there are many kinds.
    """
    reading = reading or Reading()
    data = shown_file(data)
    with warnings.catch_warnings():
        # Pillow warns of large images at half the limit here, and of odd metadata once per file.
        warnings.simplefilter("ignore")
        raw = read_raw(data, max_pixels)
        if raw is None:
            with Image.open(io.BytesIO(data)) as image:
                check_size(*image.size, max_pixels)
                orientation = orientation_of(image) if reading.exif_rotation else 1
                return _turned(convert(image, side), orientation)
        orientation = orientation_of_file(data) if reading.exif_rotation else 1
        factor = reduction(raw.values.shape[1::-1], side)
        return _turned(to_image(raw, reading, factor), orientation)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """As `ImageOps.exif_transpose`, of an entry that was read before."""
    if orientation not in range(2, 9):
        return image
    plain = Image.fromarray(np.asarray(image))
    plain.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(plain)


def decode_array(
    data: bytes,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    reading: Reading | None = None,
) -> Pixels:
    """The image in ``data`` as (H, W, 3) uint8; JPEG goes through libjpeg-turbo directly.

    Args:
        data: a whole file.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both
            sides keep at least this many pixels. None decodes every pixel, and then
            the result equals ``decode_image``'s.
        max_pixels: as there.
        reading: as there.
    """
    if data[:3] == _JPEG_MAGIC and not (reading and reading.exif_rotation):
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace in ("YCbCr", "RGB", "Gray"):
                check_size(width, height, max_pixels)
                limit = min_side or 0
                decoded: Pixels = simplejpeg.decode_jpeg(
                    data, colorspace="RGB", min_height=limit, min_width=limit
                )
                return decoded
        except ImageTooLargeError:
            raise
        except ValueError:
            pass  # CMYK, arithmetic coding, stray bytes: Pillow decides whether it is damaged.
    # A copy: torch wants it writable.
    return np.array(decode_image(data, max_pixels, reading))


def image_header(path: str) -> ImageHeader:
    """Size, colour and kind of number of an image file, read from its header only."""
    if is_tile(path):
        return tile_header(path)
    whole, part = split_part(path)
    reader = reader_by_path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if reader is not None and reader.by_path:
            return special_header(reader, ImageFile(whole), part)
        place = openable(whole)
        with open(place, "rb") if isinstance(place, str) else place as file:
            start = file.read(START)
            file.seek(0)
            reader = choose_reader(path, start)
            if reader is not None:
                return special_header(reader, ImageFile(whole, file.read()), part)
            if is_png(start):
                return png_header(start)
            if is_tiff(start):
                return tiff_header(file).summary
            file.seek(0)
            more = file.read(SEARCHED)
            if is_netpbm(more):
                return netpbm_header(more)
            deep = deep_jpeg_header(more) if more[:3] == _JPEG_MAGIC else None
            if deep is not None:
                return deep
            deep_colour = is_deep_jpeg2000(more)
            file.seek(0)
            with Image.open(file) as image:
                if deep_colour:
                    grey = image.mode[0] in "IL"
                    mode = "I;uint16" if grey else "RGB;uint16"
                    return ImageHeader(image.height, image.width, grey, "unsigned", mode)
                kind = {"F": "float"}.get(image.mode, "8 bits")
                grey = image.mode in _GREY_MODES or image.mode.startswith("I")
                kind = "unsigned" if image.mode.startswith("I") else kind
                return ImageHeader(image.height, image.width, grey, kind, image.mode)


def image_range(path: str) -> tuple[float, float] | None:
    """The range of the values in a file of more than 8 bits that count; None without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = None if reads_by_path(path, Reading()) else read_bytes(path)
        planes = (
            read_tile(path, Reading()) if is_tile(path) else read_special(path, data, Reading())
        )
        if planes is not None:
            raw: RawImage | None = planes.raw()
        else:
            assert data is not None
            raw = read_raw(data)
    return None if raw is None else robust_range(raw)
