"""AVIF, JPEG, JPEG 2000 and JPEG XL of more than 8 bits a sample.

imagecodecs (the extra ``tiff``) reads them as they are. Pillow gives 8 bits of AVIF and JPEG XL, so
that only native depth asks for more. Colours of JPEG 2000 always need it: Pillow 13 turns white of
more than 8 bits into black. JPEG of 12 bits, and without loss of up to 16, Pillow does not open.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.data.notes import note_once
from convit_ssl.data.reading.planes import ALPHA, Planes
from convit_ssl.data.reading.raw_image import ImageHeader, RawImage, Values, check_size, read_other

_AVIF_CONFIGURATION = b"av1C"  # the box that holds the depth; its flags are the third byte
_HIGH_DEPTH = 0x40
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"  # start of a codestream, and its SIZ marker
_DEPTH_AT = 42  # bytes from there to the depth of the first component, less one
SEARCHED = 65536
# Markers of JPEG: the frames, which say depth and size, and the first scan.
_JPEG_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_JPEG_PIXELS = 0xDA
_JXL = b"\xff\x0a"  # start of a codestream
_NAMES = {1: ("grey",), 2: ("grey", ALPHA), 3: ("R", "G", "B"), 4: ("R", "G", "B", ALPHA)}


def deep_avif(data: bytes) -> Planes | None:
    """An AVIF in the numbers of its file; None of 8 bits and of other formats."""
    start = data[:SEARCHED]
    if start[4:12] not in (b"ftypavif", b"ftypavis"):
        return None
    place = start.find(_AVIF_CONFIGURATION) + len(_AVIF_CONFIGURATION) + 2
    found = place > len(_AVIF_CONFIGURATION) + 2 and start[place : place + 1]
    if not found or not found[0] & _HIGH_DEPTH:
        return None
    try:
        import imagecodecs
    except ImportError:
        note_once(
            "AVIF images of more than 8 bits a channel are read as 8 bits; "
            "pip install 'convit_ssl[tiff]' to read them in full"
        )
        return None
    return _planes(imagecodecs.avif_decode(data, 0))


def is_deep_jpeg2000(start: bytes) -> bool:
    """Whether these are the first `SEARCHED` bytes of a JPEG 2000 of more than 8 bits."""
    if start[4:12] != b"jP  \r\n\x87\n" and not start.startswith(_JPEG2000_SIZE):
        return False
    place = start.find(_JPEG2000_SIZE)
    found = start[place + _DEPTH_AT : place + _DEPTH_AT + 1]
    return place >= 0 and bool(found) and (found[0] & 0x7F) + 1 > 8


def read_jpeg2000(data: bytes, max_pixels: int) -> RawImage | None:
    """A JPEG 2000 in the numbers of its file; None of 8 bits.

    Args:
        data: for which `is_deep_jpeg2000` holds.
        max_pixels: larger images are refused.

    Raises:
        ImageTooLargeError: the header announces more than ``max_pixels``.
        ValueError: colours or transparency, and imagecodecs is not installed.
        Exception: whatever the libraries raise for a damaged file.
    """
    with Image.open(io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels)
        if image.mode.startswith("I"):
            return read_other(image)
    codecs = _imagecodecs("a JPEG 2000 of more than 8 bits in colour or with transparency")
    planes = _planes(codecs.jpeg2k_decode(data))
    if planes is None:
        raise ValueError("a JPEG 2000 of more than 8 bits that is neither grey nor RGB")
    return planes.raw()


def deep_jpeg_header(start: bytes) -> ImageHeader | None:
    """Size and kind of a JPEG of more than 8 bits, from its first bytes; None of any other."""
    place = 2
    while start[place : place + 1] == b"\xff" and place + 10 <= len(start):
        marker, after = start[place + 1], start[place + 2 : place + 10]
        if marker in _JPEG_FRAMES:
            _, bits, height, width, channels = struct.unpack(">HBHHB", after)
            if bits <= 8:
                return None
            grey = channels == 1
            mode = "I;uint16" if grey else "RGB;uint16"
            return ImageHeader(height, width, grey, "unsigned", mode)
        if marker == _JPEG_PIXELS:
            break
        place += 1 if marker == 0xFF else 2 + int.from_bytes(after[:2])
    return None


def read_deep_jpeg(data: bytes) -> RawImage:
    """A JPEG of more than 8 bits, in the numbers of its file.

    Raises:
        ValueError: imagecodecs is not installed, or it is neither grey nor RGB.
        Exception: whatever the library raises for a damaged file.
    """
    planes = _planes(_imagecodecs("a JPEG of more than 8 bits").jpeg8_decode(data))
    if planes is None or planes.values.shape[-1] not in (1, 3):
        raise ValueError("a JPEG of more than 8 bits that is neither grey nor RGB")
    return planes.raw()


def _imagecodecs(what: str) -> Any:
    """The library. Raises ValueError, with what needs it, where it is not installed."""
    try:
        import imagecodecs
    except ImportError as error:
        raise ValueError(
            f"{what} needs imagecodecs, pip install 'convit_ssl[tiff]' ({error})"
        ) from None
    return imagecodecs


def deep_jxl(data: bytes) -> Planes | None:
    """A JPEG XL in the numbers of its file; None of 8 bits, of animations, and of grey."""
    if not _is_deep_jxl(data):
        return None
    try:
        import imagecodecs
    except ImportError:
        note_once(
            "colours of JPEG XL images of more than 8 bits are read as 8 bits; "
            "pip install 'convit_ssl[tiff]' to read them in full"
        )
        return None
    return _planes(imagecodecs.jpegxl_decode(data))


class _Bits:
    """The fields of a JPEG XL header (ISO 18181-1), from the lowest bit of each byte on."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        """An unsigned number with this number of bits."""
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        return found

    def size(self) -> None:
        """Skip a SizeHeader."""
        small = self.take(1)
        self.take(5 if small else (9, 13, 18, 30)[self.take(2)])
        if self.take(3) == 0:  # no ratio of the sides: the width follows
            self.take(5 if small else (9, 13, 18, 30)[self.take(2)])


def _is_deep_jxl(data: bytes) -> bool:
    """Whether the header announces more than 8 bits, or floating point; no preview, no frames."""
    start = 0
    if not data.startswith(_JXL):
        boxes = [place for kind in (b"jxlc", b"jxlp") if (place := data.find(kind)) >= 0]
        start = data.find(_JXL, min(boxes, default=0), min(boxes, default=0) + 10)
        if not boxes or start < 0:
            return False
    bits = _Bits(data[start + len(_JXL) : start + 64])
    bits.size()
    if bits.take(1):  # all default: 8 bits
        return False
    if bits.take(1):  # extra fields
        bits.take(3)
        if bits.take(1):
            bits.size()
        if bits.take(1) or bits.take(1):  # a preview, or an animation
            return False
    if bits.take(1):  # floating point
        return True
    kind = bits.take(2)
    return (8, 10, 12)[kind] > 8 if kind < 3 else 1 + bits.take(6) > 8


def _planes(values: Values) -> Planes | None:
    """None of what is not one image in grey or colour."""
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in _NAMES:
        return None
    return Planes(np.ascontiguousarray(values), _NAMES[values.shape[-1]])
