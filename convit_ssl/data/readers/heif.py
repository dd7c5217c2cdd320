"""HEIF and HEIC, the photographs of phones, by pillow-heif: the primary image."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif

from convit_ssl.data.readers import ImageFile
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.value_range import Reading


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """RGB, or RGB and transparency; 10 and 12 bits as 16 in native depth, and as 8 otherwise.

    The format itself says how a photograph is turned, and the library follows it.
    """
    image = pillow_heif.open_heif(io.BytesIO(file.bytes()), convert_hdr_to_8bit=not reading.native)
    check_size(*image.size)
    values = np.asarray(image)
    if values.ndim == 2:
        return Planes(values[..., None], ("grey",))
    return Planes(np.array(values), ("R", "G", "B", "A")[: values.shape[-1]])
