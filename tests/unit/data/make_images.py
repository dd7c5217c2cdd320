"""Awkward but valid image files, written for tests: PNG and every kind of TIFF."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

COLOUR_TYPES = {(1, False): 0, (3, False): 2, (1, True): 4, (3, True): 6}


def png16(
    values: Array, alpha: Array | None = None, transparent: Any = None, bits: int = 16
) -> bytes:
    """A PNG of 16 bits, or of fewer.

    Args:
        values: (H, W) or (H, W, 3).
        alpha: (H, W).
        transparent: the value, or the three, that a tRNS chunk calls transparent.
        bits: of a sample.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    pixels = values[..., None] if values.ndim == 2 else values
    kind = COLOUR_TYPES[pixels.shape[-1], alpha is not None]
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=-1)
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + packed(row, bits, ">") for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    extra = b""
    if transparent is not None:
        extra = chunk(b"tRNS", np.atleast_1d(transparent).astype(">u2").tobytes())
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def packed(row: Array, bits: int, order: str) -> bytes:
    """A row of unsigned samples as PNG and TIFF store it, highest bit first below 8 bits."""
    if bits in (8, 16, 32):
        return row.astype(f"{order}u{bits // 8}").tobytes()
    each = row.reshape(-1, 1).astype(np.int64) >> np.arange(bits - 1, -1, -1)
    return np.packbits((each & 1).astype(np.uint8)).tobytes()


def bare_tiff(
    values: Array, bits: int, photometric: int, order: str = "<", planar: bool = False,
    big: bool = False, tags: dict[int, tuple[str, list[int]]] | None = None,
) -> bytes:  # fmt: skip
    """An uncompressed TIFF of unsigned samples of any number of bits, without any library.

    Args:
        values: (H, W, samples).
        bits: of a sample.
        photometric: as numbered by TIFF 6.0.
        order: of the bytes, ``<`` or ``>``.
        planar: whether each channel lies in a strip of its own.
        big: BigTIFF.
        tags: others, as the letter of their type (see `struct`) and their numbers.
    """
    height, width, samples = values.shape
    planes = np.moveaxis(values, -1, 0)[..., None] if planar else values[None]
    strips = [b"".join(packed(row, bits, order) for row in plane) for plane in planes]
    start, long = (16, "Q") if big else (8, "I")
    places = [start + sum(map(len, strips[:n])) for n in range(len(strips))]
    found = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * samples), 259: ("H", [1]),
        262: ("H", [photometric]), 273: ("I", places), 277: ("H", [samples]), 278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]), 284: ("H", [2 if planar else 1]),
        **(tags or {}),
    }  # fmt: skip
    at = start + sum(map(len, strips))
    count, room = ("Q", 8) if big else ("H", 4)
    other = at + struct.calcsize(f"={count}{long}") + len(found) * (8 + 2 * room - (room == 4) * 4)
    entries, outside = struct.pack(order + count, len(found)), b""
    for tag, (letter, numbers) in sorted(found.items()):
        data = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        kind = {"B": 1, "c": 2, "H": 3, "I": 4}[letter]
        entries += struct.pack(f"{order}HH{long}", tag, kind, len(numbers))
        if len(data) > room:
            entries += struct.pack(order + long, other + len(outside))
            outside += data
        else:
            entries += data.ljust(room, b"\0")
    mark = {"<": b"II", ">": b"MM"}[order]
    header = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, at) if big else (42, at)))
    return mark + header + b"".join(strips) + entries + struct.pack(order + long, 0) + outside


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
