"""TIFF: what Pillow reads as it was written is left to Pillow, the rest goes through tifffile."""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from convit_ssl.data.gdal import Scaling, parse_number, parse_scaling, where_data
from convit_ssl.data.planes import ALPHA, MOST_CHANNELS, Planes, planes_of
from convit_ssl.data.raw_image import KINDS, ImageHeader, RawImage, Values, check_size

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OME_START, _OME_END = 8192, 65536  # bytes in which a file says that it is OME-TIFF
_BIG = 43  # in the third or fourth byte: offsets of 64 bits
_BIG_ENDIAN_BIG = b"MM\0+"  # which Pillow 13 accepts, and takes for a TIFF with offsets of 32 bits

# Tags, by their numbers in TIFF 6.0; the last two are GDAL's.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR = 273, 279, 324, 325, 284
_ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 274, 277, 338, 339
_METADATA, _NODATA = 42112, 42113

# GeoTIFF's pixel size, its transformation and its keys, and GDAL's own metadata.
_GEO = (33550, 34264, 34735, _METADATA)

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR = 0, 1, 2, 6
_JPEG = 7  # compression
_NAMES = {3: "palette", 4: "transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB",
          10: "ITULAB", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv",
          34892: "linear raw"}  # fmt: skip
_MODES = {2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_PILLOWS_BITS = (1, 2, 4, 8)
# Of its wheels: uncompressed, CCITT, LZW, JPEG, deflate, PackBits, LZMA, Zstandard.
_PILLOWS_COMPRESSIONS = (*range(1, 9), 32771, 32773, 32809, 32946, 34925, 50000)
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_ASSOCIATED, _UNASSOCIATED = 1, 2


class UnsupportedTiffError(ValueError):
    """A valid TIFF whose pixels this project would not get right; the message says which kind."""


@dataclass(frozen=True)
class TiffHeader:
    """The tags of the first page that say what its numbers mean.

    Attributes:
        bits: of a sample.
        sample_format: 1 unsigned, 2 signed, 3 floating point, 4 not said.
        photometric: as numbered by TIFF 6.0.
        samples: channels, transparency included.
        extra: what the channels beyond grey or colour are.
        nodata: the value that stands for "no data" (GDAL); None without one.
        orientation: as numbered by TIFF 6.0; 1 where the first row is at the top.
        end: where the last strip or tile ends in the file.
        separate: whether the channels are stored one after another.
        opened: whether Pillow reads this order of bytes.
        geographic: whether it has tags of GeoTIFF or GDAL.
        scaling: scale and offset of its bands (GDAL); None without.
    """

    height: int
    width: int
    bits: tuple[int, ...]
    sample_format: tuple[int, ...]
    photometric: int
    samples: int
    extra: tuple[int, ...]
    compression: int
    nodata: float | None
    orientation: int
    end: int
    separate: bool = False
    opened: bool = True
    geographic: bool = False
    scaling: Scaling | None = None

    @property
    def plain(self) -> bool:
        """Whether Pillow reads it as it was written: unsigned, 8 bits or fewer, a usual layout."""
        told = self.nodata is not None or self.scaling is not None
        if set(self.sample_format) != {_UNSIGNED} or told or not self.opened:
            return False
        if max(self.bits) > 8 or self.compression not in _PILLOWS_COMPRESSIONS:
            return False
        if self.photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK):
            bits = (8,) if self.separate else _PILLOWS_BITS
            return self.samples == 1 and self.bits[0] in bits
        if self.photometric == _RGB:
            known = self.samples == 3 or (self.samples == 4 and not self.separate)
            return known and set(self.bits) == {8}
        return True

    @property
    def windowed(self) -> bool:
        """Whether its colours allow reading by windows: grey, RGB, and JPEG, which becomes RGB."""
        jpeg = self.photometric == _YCBCR and self.compression == _JPEG
        return self.photometric in (_MIN_IS_BLACK, _RGB) or jpeg

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples. Raises UnsupportedTiffError where numpy has no such type."""
        letter = {_SIGNED: "i", _FLOAT: "f"}.get(self.sample_format[0], "u")
        bits, name = self.bits[0], f"{self.bits[0]} bits of sample format {self.sample_format[0]}"
        if len({*self.bits}) > 1 or len({*self.sample_format}) > 1:
            raise UnsupportedTiffError("a TIFF whose channels have different types")
        if self.sample_format[0] not in (_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED):
            raise UnsupportedTiffError(f"a TIFF of {name} (complex numbers)")
        if letter == "u" and bits < 16:
            bits = 8 if bits <= 8 else 16
        if bits not in ((16, 32, 64) if letter == "f" else (8, 16, 32, 64)):
            raise UnsupportedTiffError(f"a TIFF of {name}")
        return np.dtype(f"{letter}{bits // 8}")

    @property
    def summary(self) -> ImageHeader:
        """Size, colour and kind of number."""
        grey = self.photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK)
        kind, mode = "8 bits", "L" if grey else _MODES.get(self.photometric, "")
        with contextlib.suppress(UnsupportedTiffError):
            dtype = self.dtype if self.scaling is None else np.dtype(np.float32)
            if not self.plain and dtype != np.uint8:
                kind = KINDS[dtype.kind]
                mode = f"{'I' if grey else 'RGB'};{dtype}"
        if mode == "L" and self.bits[0] == 1:
            mode = "1"
        return ImageHeader(self.height, self.width, grey, kind, mode)


def is_tiff(data: bytes) -> bool:
    """Whether these are the first bytes of a TIFF."""
    return data[:4] in MAGIC


def tiff_header(file: IO[bytes]) -> TiffHeader:
    """The first page's tags.

    Raises:
        ValueError: a damaged file.
    """
    start = file.read(8)
    if _BIG in start[2:4]:
        start += file.read(8)
    opened = start[:4] != _BIG_ENDIAN_BIG
    try:
        # The little-endian mark makes Pillow read offsets of 64 bits in either order.
        marked = start if opened else MAGIC[2] + start[4:]
        tags = ImageFileDirectory_v2(marked, prefix=start[:2])
        file.seek(tags.next)
        tags.load(file)
        samples = int(tags.get(_SAMPLES, 1))
        bits = _all(tags.get(_BITS, 1))
        offsets = _all(tags.get(_OFFSETS, tags.get(_TILE_OFFSETS, ())))
        counts = _all(tags.get(_COUNTS, tags.get(_TILE_COUNTS, ())))
        return TiffHeader(
            height=int(tags[_HEIGHT]),
            width=int(tags[_WIDTH]),
            bits=bits,
            sample_format=_all(tags.get(_FORMAT, _UNSIGNED)),
            photometric=int(tags.get(_PHOTOMETRIC, _MIN_IS_BLACK)),
            samples=samples,
            extra=_all(tags.get(_EXTRA, ())),
            compression=int(tags.get(_COMPRESSION, 1)),
            nodata=parse_number(tags.get(_NODATA)),
            orientation=int(tags.get(_ORIENTATION, 1)),
            end=max((int(a + b) for a, b in zip(offsets, counts, strict=False)), default=0),
            separate=tags.get(_PLANAR) == 2,
            opened=opened,
            geographic=any(tag in tags for tag in _GEO),
            scaling=parse_scaling(tags.get(_METADATA), samples),
        )
    except KeyError as error:
        raise ValueError(f"a damaged TIFF: its tag {error} is missing") from error
    except (TypeError, SyntaxError, OSError, OverflowError, struct.error) as error:
        raise ValueError(f"a damaged TIFF ({error})") from error


def is_geotiff(data: bytes) -> bool:
    """Whether it is a GeoTIFF, or written by GDAL, in grey, RGB or bands without a meaning.

    Raises:
        ValueError: a damaged file.
    """
    header = tiff_header(io.BytesIO(data))
    known = header.photometric in (_MIN_IS_BLACK, _RGB) and header.orientation == 1
    return header.geographic and known and min(header.bits) >= 8


def _all(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)


def read_tiff(data: bytes, header: TiffHeader) -> RawImage:
    """The first page of a TIFF that is not `plain`.

    It is turned upright as its orientation says: so does Pillow with TIFF, and with TIFF alone.

    Args:
        data: the whole file.
        header: from `tiff_header`.

    Raises:
        UnsupportedTiffError: names the kind of TIFF that is not read.
        ValueError: a damaged file.
    """
    if header.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        name = _NAMES.get(header.photometric, f"photometric {header.photometric}")
        raise UnsupportedTiffError(
            f"a TIFF of {header.bits[0]}-bit {name}; convert it to grey or RGB"
        )
    colours = 3 if header.photometric == _RGB else 1
    extra = header.extra + (0,) * (header.samples - colours - len(header.extra))
    known = [kind in (_ASSOCIATED, _UNASSOCIATED) for kind in extra]
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
        premultiplied=bool(extra) and extra[0] == _ASSOCIATED,
        inverted=header.photometric == _MIN_IS_WHITE,
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
    """The channels of a TIFF: of its first page, or pages that are a channel each.

    None of what Pillow turns into colours: palettes, CMYK, YCbCr and fewer than 8 bits.

    Raises:
        UnsupportedTiffError: names the kind of TIFF that is not read.
        ValueError: a damaged file.
    """
    header = tiff_header(io.BytesIO(data))
    check_size(header.width, header.height, max_pixels)
    if header.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB) or min(header.bits) < 8:
        return None if header.plain else planes_of(read_tiff(data, header))
    if header.end > len(data):
        raise ValueError(f"the TIFF is cut off: {len(data):,} of {header.end:,} bytes")
    values = _values(data, header, header.dtype)
    names: tuple[str, ...] = ()
    if header.photometric == _RGB and header.samples >= 3:
        extra = header.extra + (0,) * (header.samples - 3 - len(header.extra))
        others = [
            ALPHA if kind in (_ASSOCIATED, _UNASSOCIATED) else f"channel{place}"
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
    valid = where_data(values, header.nodata, header.photometric == _RGB)
    if header.scaling is not None and values.shape[-1] == header.samples:
        values = header.scaling.apply(values)
    return Planes(values, names, valid, header.photometric == _MIN_IS_WHITE)


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
