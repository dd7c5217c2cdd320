"""Awkward but valid image files, written for tests: 16-bit PNG and every kind of TIFF."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

COLOUR_TYPES = {(1, False): 0, (3, False): 2, (1, True): 4, (3, True): 6}


def png16(values: Array, alpha: Array | None = None, transparent: Any = None) -> bytes:
    """A PNG of 16 bits.

    Args:
        values: (H, W) or (H, W, 3).
        alpha: (H, W).
        transparent: the value, or the three, that a tRNS chunk calls transparent.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    pixels = values[..., None] if values.ndim == 2 else values
    kind = COLOUR_TYPES[pixels.shape[-1], alpha is not None]
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=-1)
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    extra = b""
    if transparent is not None:
        extra = chunk(b"tRNS", np.atleast_1d(transparent).astype(">u2").tobytes())
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def tiff(values: Array, **options: Any) -> bytes:
    """A TIFF by tifffile.

    Args:
        values: (H, W), (H, W, C) or pages.
        options: of `tifffile.imwrite`, ``byteorder`` included.
    """
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()
