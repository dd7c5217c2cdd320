"""A scale bar on a picture, for people."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import is_tiff_name, reader_by_path, reads_by_path
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.value_range import Reading

_NICE = (1, 2, 5)
_UNITS = ((1e6, "km"), (1e3, "m"), (1.0, "mm"), (1e-3, "µm"), (1e-6, "nm"))
_LONGEST = 0.3  # of the picture
_SMALLEST = 32  # pixels of a picture that is wide enough for a bar


def with_scale_bar(image: Image.Image, spacing: tuple[float, float] | None) -> Image.Image:
    """The image with a bar of a round length in its lower left corner; as it is without a size.

    Args:
        image: RGB.
        spacing: (down, across) of a pixel in mm.
    """
    if spacing is None or image.width < _SMALLEST:
        return image
    length, text = bar_of(spacing[1] * image.width)
    pixels = max(1, round(length / spacing[1]))
    image = image.copy()
    draw = ImageDraw.Draw(image)
    thick = max(1, image.height // 64)
    left, bottom = image.width // 20, image.height - image.height // 20
    box = (left, bottom - thick, left + pixels - 1, bottom - 1)
    draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), fill=(0, 0, 0))
    draw.rectangle(box, fill=(255, 255, 255))
    draw.text(
        (left, bottom - thick - 2), text, fill=(255, 255, 255), anchor="lb", stroke_width=1,
        stroke_fill=(0, 0, 0), font=_font(max(10, image.height // 16)),
    )  # fmt: skip
    return image


@functools.lru_cache(8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has no µ."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)


def picture_width(path: str, reading: Reading) -> float | None:
    """Of a whole picture in mm; None where neither the file nor ``data.pixel_size`` says it."""
    if not reading.pixel_size and reader_by_path(path) is None and not is_tiff_name(path):
        return None
    with contextlib.suppress(Exception):  # whatever a library raises: it is read elsewhere, too
        data = None if reads_by_path(path, reading) else read_bytes(path)
        planes = read_planes(path, data, replace(reading, physical=reading.physical or 1.0))
        across = reading.pixel_size or (planes.spacing[1] if planes.spacing else 0.0)
        return across * planes.values.shape[1] or None
    return None


def bar_of(width: float) -> tuple[float, str]:
    """A round length for a picture so many mm wide: in mm, and in words."""
    most = width * _LONGEST
    power = 10.0 ** np.floor(np.log10(most))
    length = float(max(n * power for n in _NICE if n * power <= most * (1 + 1e-9)))
    size, unit = next((s, u) for s, u in _UNITS if length >= s * (1 - 1e-9) or u == "nm")
    return length, f"{length / size:g} {unit}"
