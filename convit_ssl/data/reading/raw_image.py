"""The numbers of an image file as they were written, before anything makes 8 bits of them.

`read_raw` is the one place that looks at sample format, photometric interpretation, bits per
sample and extra samples. `convit_ssl.data.reading.value_range` turns its result into 8-bit RGB.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[Any]

# Twice Pillow's warning level: where Pillow itself refuses to go on.
MAX_PIXELS = 178_956_970

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 29  # the first bytes of a PNG, up to its bit depth and colour type
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_COPIED = 1 << 22  # pixels at a time
_PNG_GREY, _PNG_COLOUR, _PNG_GREY_ALPHA, _PNG_COLOUR_ALPHA = 0, 2, 4, 6


class ImageTooLargeError(ValueError):
    """The header announces more pixels than the limit (a decompression bomb)."""


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image by its header, before its pixels take memory.

    Raises:
        ImageTooLargeError: it announces more than ``max_pixels``.
        ValueError: it has no pixels.
    """
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels is not an image")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width} x {height} pixels is over the limit of {max_pixels:,} pixels"
        )


@dataclass
class RawImage:
    """One image in the numbers of its file.

    Attributes:
        values: (H, W) of grey or (H, W, 3) of colour, of the file's own type.
        alpha: (H, W) of the same type, or bool; None without transparency.
        premultiplied: whether the values were multiplied by alpha (TIFF, associated alpha).
        inverted: whether the smallest value is white (TIFF, MinIsWhite).
        valid: (H, W), or the shape of the values where colours differ; False where the file says
            that there is no data. None if the file does not say.
    """

    values: Values
    alpha: Values | None = None
    premultiplied: bool = False
    inverted: bool = False
    valid: npt.NDArray[np.bool_] | None = None

    @property
    def kind(self) -> str:
        """``unsigned``, ``signed`` or ``float``."""
        return KINDS[self.values.dtype.kind]


KINDS = {"b": "unsigned", "u": "unsigned", "i": "signed", "f": "float"}


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of a file tell.

    Attributes:
        height, width: in pixels.
        grey: whether it is stored without colour.
        kind: ``8 bits`` where values are shown as they are; ``unsigned``, ``signed`` or ``float``
            where a range has to be chosen.
        mode: as Pillow names what is stored; ``I`` or ``RGB`` and the type of number beyond 8 bits.
    """

    height: int
    width: int
    grey: bool
    kind: str = "8 bits"
    mode: str = ""


def is_png(data: bytes) -> bool:
    """Whether these are the first bytes of a PNG."""
    return data[:8] == PNG_MAGIC and data[12:16] == b"IHDR" and len(data) >= _PNG_HEADER


def png_header(data: bytes) -> ImageHeader:
    """The header of a PNG, from its first 29 bytes.

    Args:
        data: for which `is_png` holds.
    """
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    grey = colour in (_PNG_GREY, _PNG_GREY_ALPHA)
    if depth == 16:
        return ImageHeader(height, width, grey, "unsigned", "I;uint16" if grey else "RGB;uint16")
    mode = "1" if depth == 1 and colour == _PNG_GREY else _PNG_MODES.get(colour, "")
    return ImageHeader(height, width, grey, "8 bits", mode)


def read_png(data: bytes) -> RawImage | None:
    """A PNG of 16 bits; None of fewer, which Pillow reads.

    Raises:
        Exception: whatever Pillow raises for a damaged file.
    """
    if not is_png(data) or png_header(data).kind == "8 bits":
        return None
    colour = data[25]
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # also where OpenCV reads the values: it is silent about damage
        if colour == _PNG_GREY:
            values = _values16(image)
    chunks = dict(_png_chunks(data))
    transparent = chunks.get(b"tRNS", b"")
    if colour == _PNG_GREY:
        if len(transparent) < 2:
            return RawImage(values)
        return RawImage(values, values != struct.unpack(">H", transparent[:2])[0])
    values = _opencv(_plain_png(data))  # B, G, R, alpha
    if colour == _PNG_GREY_ALPHA:
        return RawImage(values[..., 0], values[..., -1])
    pixels = np.ascontiguousarray(values[..., 2::-1])
    if colour == _PNG_COLOUR_ALPHA:
        return RawImage(pixels, values[..., 3])
    if len(transparent) < 6:
        return RawImage(pixels)
    return RawImage(pixels, (pixels != struct.unpack(">HHH", transparent[:6])).any(axis=-1))


def _values16(image: Image.Image) -> Values:
    """The values of a grey image, copied by strips: Pillow copies what it hands over twice."""
    values = np.empty((image.height, image.width), np.uint16)
    rows = max(1, _COPIED // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        values[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return values


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        place += 12 + size


def _plain_png(data: bytes) -> bytes:
    """The same without what OpenCV would apply to the values (transparency, gamma, animation)."""
    parts, place = [PNG_MAGIC], 8
    while place + 12 <= len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        if data[place + 4 : place + 8] in (b"IHDR", b"IDAT", b"IEND"):
            parts.append(data[place : place + 12 + size])
        place += 12 + size
    return b"".join(parts)


def _opencv(data: bytes) -> Values:
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("a 16-bit PNG that OpenCV cannot read")
    return values


def read_other(image: Image.Image) -> RawImage | None:
    """An image that Pillow opened with more than 8 bits (PGM, JPEG 2000, PFM); None of fewer."""
    if image.mode == "F":
        return RawImage(np.asarray(image))
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    return RawImage(values if values.min(initial=0) < 0 else values.astype(np.uint32))
