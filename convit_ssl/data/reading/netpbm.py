"""PAM, and PFM in colour: relatives of PGM and PPM that Pillow does not read.

Source: the Netpbm manual, pam(5) and pfm(5).
"""

from __future__ import annotations

import re

import numpy as np

from convit_ssl.data.reading.raw_image import ImageHeader, RawImage, Values, check_size

_PAM, _PFM = b"P7\n", re.compile(rb"PF\s+(\d+)\s+(\d+)\s+(\S+)\s")
_LONGEST = 4096  # bytes of a header
_DEPTHS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}


def is_netpbm(start: bytes) -> bool:
    """Whether these are the first bytes of a PAM or of a PFM in colour."""
    return start.startswith(_PAM) or bool(re.match(rb"PF\s", start))


def netpbm_header(start: bytes) -> ImageHeader:
    """Size, colour and kind of number.

    Args:
        start: the first bytes of a file for which `is_netpbm` holds.

    Raises:
        ValueError: a damaged file, or one of other channels.
    """
    if not start.startswith(_PAM):
        width, height, _, _ = _pfm_header(start)
        return ImageHeader(height, width, False, "float", "RGB;float32")
    width, height, depth, most, _ = _pam_header(start)
    deep, grey = most > 255, depth < 3
    mode = (
        ("I;uint16" if grey else "RGB;uint16") if deep else {1: "L", 2: "LA", 3: "RGB"}.get(depth)
    )
    return ImageHeader(height, width, grey, "unsigned" if deep else "8 bits", mode or "RGBA")


def read_netpbm(data: bytes, max_pixels: int) -> RawImage:
    """The image, of 8 bits, of 16 bits or of floating point; see `netpbm_header`.

    As Pillow has it of PGM, numbers up to another maximum are stretched to 255 or 65535.
    """
    if not data.startswith(_PAM):
        width, height, order, begin = _pfm_header(data)
        check_size(width, height, max_pixels)
        rows = _numbers(data, begin, f"{order}f4", (height, width, 3))
        return RawImage(np.ascontiguousarray(rows[::-1].astype(np.float32)))
    width, height, depth, most, begin = _pam_header(data)
    check_size(width, height, max_pixels)
    values = _numbers(data, begin, ">u2" if most > 255 else "u1", (height, width, depth))
    white = 65535 if most > 255 else 255
    stretched = np.rint(np.minimum(values, most) * (white / most))
    levels = stretched.astype(np.uint16 if most > 255 else np.uint8)
    colours = np.ascontiguousarray(levels[..., 0] if depth < 3 else levels[..., :3])
    return RawImage(colours, None if depth % 2 else levels[..., -1])


def _numbers(data: bytes, begin: int, kind: str, shape: tuple[int, int, int]) -> Values:
    count = shape[0] * shape[1] * shape[2]
    needed = begin + count * np.dtype(kind).itemsize
    if len(data) < needed:
        raise ValueError(f"the file is cut off: {len(data):,} of {needed:,} bytes")
    return np.frombuffer(data, kind, count, begin).reshape(shape)


def _pfm_header(data: bytes) -> tuple[int, int, str, int]:
    """Width, height, order of bytes, and where the pixels begin."""
    found = _PFM.match(data[:_LONGEST])
    try:
        if found is None:
            raise ValueError
        return int(found[1]), int(found[2]), "<" if float(found[3]) < 0 else ">", found.end()
    except ValueError:
        raise ValueError("a damaged PFM: its header cannot be read") from None


def _pam_header(data: bytes) -> tuple[int, int, int, int, int]:
    """Width, height, channels, the largest number, and where the pixels begin."""
    text, end, _ = data[:_LONGEST].partition(b"\nENDHDR\n")
    fields = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.strip().partition(b" ")
        fields[name] = value.strip()
    try:
        width, height, depth, most = (
            int(fields[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
        )
    except (KeyError, ValueError):
        end = b""
    if not end or not 0 < most < 65536:
        raise ValueError("a damaged PAM: its header cannot be read")
    if depth not in _DEPTHS:
        raise ValueError(f"a PAM of {depth} channels; {', '.join(_DEPTHS.values())} are read")
    return width, height, depth, most, len(text) + len(end)
