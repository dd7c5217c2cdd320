"""JPEG XL by pillow-jxl-plugin: 8 bits in grey or colour, 16 bits in grey.

In native depth imagecodecs reads colours of more than 8 bits, where it is installed.
"""

from __future__ import annotations

import io

import numpy as np
import pillow_jxl  # noqa: F401  (registers the format with Pillow)
from PIL import Image, ImageOps

from convit_ssl.data.readers import ImageFile
from convit_ssl.data.reading.deep_photos import deep_jxl
from convit_ssl.data.reading.pixels import convert
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.upright import turned_as
from convit_ssl.data.reading.value_range import Reading


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """The image, the first frame of an animation.

    Raises:
        ValueError: a damaged file. What libjxl says of it is how to build libjxl.
    """
    try:
        opening = Image.open(io.BytesIO(file.bytes()))
        check_size(*opening.size)
        opening.load()
    except RuntimeError as error:
        raise ValueError("the JPEG XL file is damaged or cut off") from error
    with opening as opened:
        image = ImageOps.exif_transpose(opened) if reading.exif_rotation else opened
        if image.mode == "L" or image.mode.startswith("I"):
            return Planes(np.array(image)[..., None], ("grey",))
        deep = deep_jxl(file.bytes()) if reading.native else None
        if deep is not None:
            return turned_as(deep, opened) if reading.exif_rotation else deep
        if image.mode in ("LA", "RGBA"):
            names = ("grey", "A") if image.mode == "LA" else ("R", "G", "B", "A")
            return Planes(np.array(image), names)
        return Planes(np.array(convert(image)), ("R", "G", "B"))
