"""TIFF: what Pillow reads as it was written is left to Pillow, the rest goes through tifffile.

Of several pages the first that is neither a thumbnail nor a mask is the image, see
`convit_ssl.data.reading.tiff_pages`.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.data.reading.gdal import where_data
from convit_ssl.data.reading.planes import ALPHA, MOST_CHANNELS, Planes, planes_of
from convit_ssl.data.reading.raw_image import KINDS, RawImage, Values, check_size
from convit_ssl.data.reading.tiff_pages import shown_file
from convit_ssl.data.reading.tiff_tags import (
    ASSOCIATED,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    NAMES,
    RGB,
    UNASSOCIATED,
    TiffHeader,
    UnsupportedTiffError,
    tiff_header,
)

_OME_START, _OME_END = 8192, 65536  # bytes in which a file says that it is OME-TIFF


def read_tiff(data: bytes, header: TiffHeader) -> RawImage:
    """A TIFF that is not `plain`.

    It is turned upright as its orientation says: so does Pillow with TIFF, and with TIFF alone.

    Args:
        data: the whole file, which begins with the page that is shown (`shown_file`).
        header: from `tiff_header`.

    Raises:
        UnsupportedTiffError: names the kind of TIFF that is not read.
        ValueError: a damaged file.
    """
    if header.loose_ycbcr:
        return RawImage(_colours_by_opencv(data, header))
    if header.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
        name = NAMES.get(header.photometric, f"photometric {header.photometric}")
        raise UnsupportedTiffError(
            f"a TIFF of {header.bits[0]}-bit {name}{' with parts left out' * header.sparse}; "
            "convert it to grey or RGB"
        )
    colours = 3 if header.photometric == RGB else 1
    extra = header.extra + (0,) * (header.samples - colours - len(header.extra))
    known = [kind in (ASSOCIATED, UNASSOCIATED) for kind in extra]
    if header.samples < colours or len(extra) > 1:
        raise UnsupportedTiffError(
            f"a TIFF of {header.samples} channels; read all of them with data.channels=all, or "
            "three with data.channels=[1,2,3]"
        )
    dtype = header.dtype
    if header.end > len(data):
        raise ValueError(f"the TIFF is cut off: {len(data):,} of {header.end:,} bytes")
    values = _upright(_values(data, header, dtype), header.orientation)
    valid = where_data(values[..., :colours], header.nodata, colours == 3)
    if header.scaling is None:
        values = _stretched(values, header.bits[0])
        colour = values[..., :colours]
    else:
        colour = header.scaling.of(slice(colours)).apply(values[..., :colours])
    alpha = values[..., colours] if known and known[0] else None
    return RawImage(
        np.ascontiguousarray(colour if colours == 3 else colour[..., 0]),
        alpha,
        premultiplied=bool(extra) and extra[0] == ASSOCIATED,
        inverted=header.photometric == MIN_IS_WHITE,
        valid=valid,
    )


def _stretched(values: Values, bits: int) -> Values:
    """Samples of fewer than 8 bits as 0..255, as Pillow gives those that it reads."""
    if bits >= 8:
        return values
    table = np.rint(np.arange(2**bits) * (255.0 / (2**bits - 1))).astype(np.uint8)
    stretched: Values = table[values]
    return stretched


def _upright(values: Values, orientation: int) -> Values:
    """(H, W, samples) with the first row at the top."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}.get(orientation, 1)
    if orientation in (2, 3):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4) else values


def read_tiff_planes(data: bytes, max_pixels: int) -> Planes | None:
    """The channels of a TIFF: of the page that is shown, or pages that are a channel each.

    None of what Pillow turns into colours: palettes, CMYK, YCbCr and fewer than 8 bits.

    Raises:
        UnsupportedTiffError: names the kind of TIFF that is not read.
        ValueError: a damaged file.
    """
    data = shown_file(data)
    header = tiff_header(io.BytesIO(data))
    check_size(header.width, header.height, max_pixels)
    if header.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) or min(header.bits) < 8:
        return None if header.plain else planes_of(read_tiff(data, header))
    if header.end > len(data):
        raise ValueError(f"the TIFF is cut off: {len(data):,} of {header.end:,} bytes")
    values = _values(data, header, header.dtype)
    names: tuple[str, ...] = ()
    if header.photometric == RGB and header.samples >= 3:
        extra = header.extra + (0,) * (header.samples - 3 - len(header.extra))
        others = [
            ALPHA if kind in (ASSOCIATED, UNASSOCIATED) else f"channel{place}"
            for place, kind in enumerate(extra, 4)
        ]
        names = ("R", "G", "B", *others)
        # Several channels that are a colour picture each, as slide scanners store fluorescence.
        ome = b"<OME" in data[:_OME_START] or b"<OME" in data[-_OME_END:]
        pages = _channel_pages(data, header) if ome else None
        if pages is not None:
            values, names = pages
    elif header.samples == 1:
        names = ("grey",)
        pages = _channel_pages(data, header)
        if pages is not None:
            values, names = pages
    values = _upright(values, header.orientation)
    valid = where_data(values, header.nodata, header.photometric == RGB)
    if header.scaling is not None and values.shape[-1] == header.samples:
        values = header.scaling.apply(values)
    return Planes(values, names, valid, header.photometric == MIN_IS_WHITE)


def _channel_pages(data: bytes, header: TiffHeader) -> tuple[Values, tuple[str, ...]] | None:
    """Pages that the file calls channels (OME, ImageJ), or does not name, and their names."""
    try:
        import tifffile
    except ImportError:
        return None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) < 2:
            return None
        series = file.series[0]
        axes, shape = series.axes, series.shape
        kinds = [(axis, size) for axis, size in zip(axes, shape, strict=True) if size > 1]
        stack = [(axis, size) for axis, size in kinds if axis not in "YXS"]
        if len(stack) != 1 or stack[0][0] not in "CQI":
            return None
        samples = shape[axes.index("S")] if "S" in axes else 1
        channels = stack[0][1] * samples
        if channels > MOST_CHANNELS:
            return None
        if shape[axes.index("Y")] != header.height or shape[axes.index("X")] != header.width:
            return None
        check_size(header.width * channels, header.height)
        order = [
            axes.index(axis) for axis in ("Y", "X", stack[0][0], *("S" if "S" in axes else ""))
        ]
        rest = [place for place in range(len(axes)) if place not in order]  # of size 1
        values = series.asarray(maxworkers=1).transpose(*rest, *order)
        values = values.reshape(header.height, header.width, channels)
        names = _ome_names(file.ome_metadata) if file.is_ome else ()
        return values, names if len(names) == channels else ()


def _ome_names(metadata: str | None) -> tuple[str, ...]:
    import re

    found = re.findall(r"<Channel\b[^>]*?\bName=\"([^\"]+)\"", metadata or "")
    return tuple(found)


def _values(data: bytes, header: TiffHeader, dtype: np.dtype[Any]) -> Values:
    """(H, W, samples) of the file's type."""
    if header.empty:  # tifffile takes the first bytes of the file for uncompressed values
        nothing = np.zeros((header.height, header.width, header.samples), dtype)
        with contextlib.suppress(ValueError, OverflowError):  # it does not fit
            nothing[...] = header.nodata or 0
        return nothing
    try:
        found = _by_tifffile(data)
    except ImportError as error:
        other = _by_libtiff(data, header, dtype)
        if other is None:
            raise UnsupportedTiffError(
                f"a TIFF of {header.bits[0]}-bit {KINDS[dtype.kind]} samples or of this "
                "compression needs tifffile and imagecodecs, pip install 'convit_ssl[tiff]' "
                f"({error})"
            ) from None
        found = other
    found = found.astype(
        np.uint8 if found.dtype == bool else found.dtype.newbyteorder("="), copy=False
    )
    if found.shape[:2] != (header.height, header.width) and found.ndim == 3:
        found = np.moveaxis(found, 0, -1)  # channel after channel
    if found.ndim == 2:
        found = found[..., None]
    if found.shape != (header.height, header.width, header.samples) or found.dtype != dtype:
        raise UnsupportedTiffError(
            f"a TIFF of {header.samples} x {header.bits[0]} bits that is read as {found.dtype} "
            f"of shape {found.shape}"
        )
    return found


def _colours_by_opencv(data: bytes, header: TiffHeader) -> Values:
    """(H, W, 3) of 8 bits, by OpenCV's libtiff.

    Raises:
        UnsupportedTiffError: it is turned, or OpenCV does not read it.
    """
    import cv2

    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    found = None
    if header.orientation == 1:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if found is None or found.shape[:2] != (header.height, header.width):
        raise UnsupportedTiffError("a TIFF of uncompressed YCbCr; convert it to grey or RGB")
    return np.ascontiguousarray(found[..., ::-1])


def _by_tifffile(data: bytes) -> Values:
    """Raises ImportError where tifffile, or imagecodecs for this compression, is missing."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        try:
            return np.asarray(file.pages[0].asarray(maxworkers=1))
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise ImportError(str(error)) from None
            raise


def _by_libtiff(data: bytes, header: TiffHeader, dtype: np.dtype[Any]) -> Values | None:
    """The same by Pillow's or OpenCV's libtiff, where they give these very numbers."""
    known = [np.uint16, np.int16, np.int32, np.float32]
    if data[:2] == b"MM" and header.compression != 1:
        known = known[:1]  # Pillow 13 swaps the bytes of the others
    if header.samples == 1 and dtype in known:
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:
            if image.mode == "F" or image.mode.startswith("I"):
                return np.asarray(image).astype(dtype)
    import cv2

    if dtype not in (np.uint16, np.float32, np.float64) or header.samples not in (1, 3, 4):
        return None
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != dtype:
        return None
    if found.ndim == 2:
        return found
    order = [2, 1, 0, 3][: header.samples]
    return found[..., order] if found.shape[-1] == header.samples else None
