"""AVIF, JPEG 2000 and JPEG XL of more than 8 bits a sample, which Pillow hands out as 8 bits.

imagecodecs (the extra ``tiff``) reads them as they are. Only native depth asks for them.
"""

from __future__ import annotations

import numpy as np

from convit_ssl.data.notes import note_once
from convit_ssl.data.planes import ALPHA, Planes
from convit_ssl.data.raw_image import Values

_AVIF_CONFIGURATION = b"av1C"  # the box that holds the depth; its flags are the third byte
_HIGH_DEPTH = 0x40
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"  # start of a codestream, and its SIZ marker
_DEPTH_AT = 42  # bytes from there to the depth of the first component, less one
_SEARCHED = 65536
_JXL = b"\xff\x0a"  # start of a codestream
_NAMES = {1: ("grey",), 2: ("grey", ALPHA), 3: ("R", "G", "B"), 4: ("R", "G", "B", ALPHA)}


def deep_photo(data: bytes) -> Planes | None:
    """An AVIF or a JPEG 2000 in the numbers of its file; None of 8 bits and of other formats."""
    kind = _deep_kind(data)
    if kind is None:
        return None
    try:
        import imagecodecs
    except ImportError:
        note_once(
            f"{kind} images of more than 8 bits a channel are read as 8 bits; "
            "pip install 'convit_ssl[tiff]' to read them in full"
        )
        return None
    if kind == "AVIF":
        return _planes(imagecodecs.avif_decode(data, 0))
    return _planes(imagecodecs.jpeg2k_decode(data))


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


def _deep_kind(data: bytes) -> str | None:
    start = data[:_SEARCHED]
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        place = start.find(_AVIF_CONFIGURATION) + len(_AVIF_CONFIGURATION) + 2
        found = place > len(_AVIF_CONFIGURATION) + 2 and start[place : place + 1]
        return "AVIF" if found and found[0] & _HIGH_DEPTH else None
    if start[4:12] == b"jP  \r\n\x87\n" or start.startswith(_JPEG2000_SIZE):
        place = start.find(_JPEG2000_SIZE)
        found = place >= 0 and start[place + _DEPTH_AT : place + _DEPTH_AT + 1]
        return "JPEG 2000" if found and (found[0] & 0x7F) + 1 > 8 else None
    return None


def _planes(values: Values) -> Planes | None:
    """None of what is not one image in grey or colour."""
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in _NAMES:
        return None
    return Planes(np.ascontiguousarray(values), _NAMES[values.shape[-1]])
