"""Bytes of an image file to 8-bit RGB, whatever the file holds.

One rule per kind of image:

* animated and multi-page files: the first frame;
* transparency: laid over white, as a viewer shows it;
* grey, palette, 1-bit, CMYK, YCbCr: converted by Pillow;
* 16-bit grey: divided by its full range, the fewest bits from 12 to 16 that hold all but a
  thousandth of its pixels, as microscope and X-ray cameras have hot ones; an image that
  stays below 256 is taken as one of 8 bits. A collection's ``white_level`` keeps its images
  comparable: none is divided by less;
* 16-bit colour: its high bytes, which is what Pillow reads; of 12 bits they would be four,
  so such a file is refused;
* floating point: 0..1 is stretched to 0..255, any other range from its minimum to
  its maximum.

EXIF orientation is left alone, as in the published ImageNet pipelines.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convit_ssl.data.storage import openable

Pixels = npt.NDArray[np.uint8]

# Twice Pillow's warning level: where Pillow itself refuses to go on.
MAX_PIXELS = 178_956_970

# Of a camera, inside 16.
_BITS = range(12, 17)
_HOT = 1000  # one pixel of so many may be brighter than the full range
# The largest high byte of colours of 12 bits.
_HIGH_BYTE_OF_12_BITS = 15
_JPEG_MAGIC = b"\xff\xd8\xff"


class ImageTooLargeError(ValueError):
    """The header announces more pixels than the limit (a decompression bomb)."""


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width} x {height} pixels is over the limit of {max_pixels:,} pixels"
        )


def scale_to_bytes(values: npt.NDArray[Any], white_level: int = 0) -> Pixels:
    """Integers of more than 8 bits, or floating point, to 0..255.

    Args:
        values: (H, W) of any numeric type.
        white_level: of integers, what becomes white at least.
    """
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(finite.min()), float(finite.max())
        if low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
        stretched: Pixels = np.rint((finite - low) * (255.0 / max(high - low, 1e-12))).astype(
            np.uint8
        )
        return stretched
    full = max(full_range(values), white_level)
    scaled: Pixels = np.rint(np.clip(values, 0, full) * (255.0 / full)).astype(np.uint8)
    return scaled


def full_range(values: npt.NDArray[Any]) -> int:
    """Of integers: what becomes white. From 12 bits on, depths differ by a factor of two."""
    peak = int(values.max())
    if peak <= 255:
        return 255
    for bits in _BITS:
        if np.count_nonzero(values >= 1 << bits) <= values.size // _HOT:
            return (1 << bits) - 1
    return peak


def _check_depth(image: Image.Image) -> None:
    extrema: Any = image.getextrema()
    if 0 < max(high for _, high in extrema[:3]) <= _HIGH_BYTE_OF_12_BITS:
        raise ValueError(
            "16-bit colour that uses no more than 12 bits, of which the upper 8 are read; "
            "convert it to 8-bit colour"
        )


def is_deep_grey(mode: str) -> bool:
    """Whether a Pillow mode holds grey integers of more than 8 bits."""
    return mode.startswith("I")


def to_rgb(image: Image.Image, white_level: int = 0) -> Image.Image:
    """Any Pillow image to mode RGB, by the rules at the head of this module.

    Args:
        image: of any mode.
        white_level: of 16-bit grey, what becomes white at least.

    Raises:
        ValueError: colour of 12 bits in 16.
    """
    tiles: Any = getattr(image, "tile", ())  # how the file holds it, until it is loaded
    deep_colour = image.mode in ("RGB", "RGBA") and any(";16" in str(tile) for tile in tiles)
    image.load()
    if deep_colour:
        _check_depth(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if is_deep_grey(image.mode) or image.mode == "F":
        return Image.fromarray(scale_to_bytes(np.asarray(image), white_level)).convert("RGB")
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("RGB")


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, white_level: int = 0) -> Image.Image:
    """The image in ``data`` as Pillow RGB; ``white_level`` as for :func:`to_rgb`.

    Raises:
        ImageTooLargeError: the header announces more than ``max_pixels``.
        Exception: whatever Pillow raises for a damaged file; there are many kinds.
    """
    with warnings.catch_warnings():
        # Pillow warns of large images at half the limit here, and of odd metadata once per file.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            _check_size(*image.size, max_pixels)
            return to_rgb(image, white_level)


def decode_array(
    data: bytes,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
) -> Pixels:
    """The image in ``data`` as (H, W, 3) uint8; JPEG goes through libjpeg-turbo directly.

    Args:
        data: a whole file.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both
            sides keep at least this many pixels. None decodes every pixel, and then
            the result equals ``decode_image``'s.
        max_pixels: as there.
        white_level: as there.
    """
    if data[:3] == _JPEG_MAGIC:
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace in ("YCbCr", "RGB", "Gray"):
                _check_size(width, height, max_pixels)
                limit = min_side or 0
                decoded: Pixels = simplejpeg.decode_jpeg(
                    data, colorspace="RGB", min_height=limit, min_width=limit
                )
                return decoded
        except ImageTooLargeError:
            raise
        except ValueError:
            pass  # CMYK, arithmetic coding, stray bytes: Pillow decides whether it is damaged.
    return np.array(decode_image(data, max_pixels, white_level))  # a copy: torch wants it writable


def image_header(path: str) -> tuple[int, int, str]:
    """(height, width, Pillow mode) of an image file, read from its header only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(openable(path)) as image:
            return image.height, image.width, image.mode


def image_white_level(path: str) -> int | None:
    """What 16-bit grey becomes white by itself: the full range of one image; None of any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(openable(path)) as image:
            if not is_deep_grey(image.mode):
                return None
            _check_size(*image.size, MAX_PIXELS)
            return full_range(np.asarray(image))
