"""The tags of a TIFF that say what its numbers mean."""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from convit_ssl.data.reading.gdal import Scaling, parse_number, parse_scaling
from convit_ssl.data.reading.raw_image import KINDS, ImageHeader
from convit_ssl.data.reading.tiff_pages import shown_page

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG = 43  # in the third or fourth byte: offsets of 64 bits
_BIG_ENDIAN_BIG = b"MM\0+"  # which Pillow 13 accepts, and takes for a TIFF with offsets of 32 bits

# Tags, by their numbers in TIFF 6.0; the last two are GDAL's.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR = 273, 279, 324, 325, 284
_ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 274, 277, 338, 339
_METADATA, _NODATA = 42112, 42113

# GeoTIFF's pixel size, its transformation and its keys, and GDAL's own metadata.
_GEO = (33550, 34264, 34735, _METADATA)

MIN_IS_WHITE, MIN_IS_BLACK, RGB, _YCBCR = 0, 1, 2, 6
_UNCOMPRESSED, _JPEG = 1, 7  # compressions
_FAX = (2, 3, 4)  # compressions in which 0 is white where the file does not say
NAMES = {3: "palette", 4: "transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB",
          10: "ITULAB", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv",
          34892: "linear raw"}  # fmt: skip
_MODES = {2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_PILLOWS_BITS = (1, 2, 4, 8)
# Of its wheels: uncompressed, CCITT, LZW, JPEG, deflate, PackBits, LZMA, Zstandard.
_PILLOWS_COMPRESSIONS = (*range(1, 9), 32771, 32773, 32809, 32946, 34925, 50000)
_UNSIGNED, _SIGNED, _FLOAT, UNDEFINED = 1, 2, 3, 4
ASSOCIATED, UNASSOCIATED = 1, 2


class UnsupportedTiffError(ValueError):
    """A valid TIFF whose pixels this project would not get right; the message says which kind."""


@dataclass(frozen=True)
class TiffHeader:
    """The tags of the page that is shown which say what its numbers mean.

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
        moved: whether the page is not the first of the file.
        told: whether the file says what its photometric is.
        sparse: whether strips or tiles are left out (GDAL); they are "no data", or 0.
        empty: whether all of them are.
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
    moved: bool = False
    told: bool = True
    sparse: bool = False
    empty: bool = False

    @property
    def plain(self) -> bool:
        """Whether Pillow reads it as it was written: unsigned, 8 bits or fewer, a usual layout."""
        if self.nodata is not None or self.scaling is not None or self.sparse:
            return False
        if set(self.sample_format) != {_UNSIGNED} or not self.told or not self.opened:
            return False
        if max(self.bits) > 8 or self.compression not in _PILLOWS_COMPRESSIONS:
            return False
        if self.photometric in (MIN_IS_WHITE, MIN_IS_BLACK):
            bits = (8,) if self.separate else _PILLOWS_BITS
            return self.samples == 1 and self.bits[0] in bits
        if self.photometric == RGB:
            known = self.samples == 3 or (self.samples == 4 and not self.separate)
            return known and set(self.bits) == {8}
        return not self.loose_ycbcr

    @property
    def loose_ycbcr(self) -> bool:
        """Whether it is YCbCr without compression: Pillow 13 takes it for whole pixels."""
        return self.photometric == _YCBCR and self.compression == _UNCOMPRESSED

    @property
    def windowed(self) -> bool:
        """Whether its colours allow reading by windows: grey, RGB, and JPEG, which becomes RGB."""
        jpeg = self.photometric == _YCBCR and self.compression == _JPEG
        return self.photometric in (MIN_IS_BLACK, RGB) or jpeg

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples. Raises UnsupportedTiffError where numpy has no such type."""
        letter = {_SIGNED: "i", _FLOAT: "f"}.get(self.sample_format[0], "u")
        bits, name = self.bits[0], f"{self.bits[0]} bits of sample format {self.sample_format[0]}"
        if len({*self.bits}) > 1 or len({*self.sample_format}) > 1:
            raise UnsupportedTiffError("a TIFF whose channels have different types")
        if self.sample_format[0] not in (_UNSIGNED, _SIGNED, _FLOAT, UNDEFINED):
            raise UnsupportedTiffError(f"a TIFF of {name} (complex numbers)")
        if letter == "u" and bits < 16:
            bits = 8 if bits <= 8 else 16
        if bits not in ((16, 32, 64) if letter == "f" else (8, 16, 32, 64)):
            raise UnsupportedTiffError(f"a TIFF of {name}")
        return np.dtype(f"{letter}{bits // 8}")

    @property
    def summary(self) -> ImageHeader:
        """Size, colour and kind of number."""
        grey = self.photometric in (MIN_IS_WHITE, MIN_IS_BLACK)
        kind, mode = "8 bits", "L" if grey else _MODES.get(self.photometric, "")
        with contextlib.suppress(UnsupportedTiffError):
            dtype = self.dtype if self.scaling is None else np.dtype(np.float32)
            if not self.plain and dtype != np.uint8:
                kind = KINDS[dtype.kind]
                mode = f"{'I' if grey else 'RGB'};{dtype}"
        if mode == "L" and self.bits[0] == 1:
            mode = "1"
        size = (self.height, self.width)
        height, width = size if self.orientation < 5 else size[::-1]
        return ImageHeader(height, width, grey, kind, mode)


def is_tiff(data: bytes) -> bool:
    """Whether these are the first bytes of a TIFF."""
    return data[:4] in MAGIC


def tiff_header(file: IO[bytes]) -> TiffHeader:
    """The tags of the page that is shown.

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
        page = shown_page(file)
        file.seek(tags.next if page is None else page)
        tags.load(file)
        samples = int(tags.get(_SAMPLES, 1))
        compression = int(tags.get(_COMPRESSION, _UNCOMPRESSED))
        bits = _all(tags.get(_BITS, 1))
        offsets = _all(tags.get(_OFFSETS, tags.get(_TILE_OFFSETS, ())))
        counts = _all(tags.get(_COUNTS, tags.get(_TILE_COUNTS, ())))
        geographic = any(tag in tags for tag in _GEO)
        nodata = parse_number(tags.get(_NODATA))
        empty = bool(offsets) and not any(map(min, offsets, counts or offsets))
        if empty and not geographic and nodata is None:
            raise ValueError(
                "a damaged TIFF: it has no pixels, since none of its strips or tiles was written"
            )
        photometric = int(tags.get(_PHOTOMETRIC, _usual_photometric(samples, compression)))
        formats = _all(tags.get(_FORMAT, _UNSIGNED))
        usual = _usual_extra(photometric, samples, bits, formats)
        return TiffHeader(
            height=int(tags[_HEIGHT]),
            width=int(tags[_WIDTH]),
            bits=bits,
            sample_format=formats,
            photometric=photometric,
            samples=samples,
            extra=_all(tags.get(_EXTRA, usual)),
            compression=compression,
            nodata=nodata,
            orientation=int(tags.get(_ORIENTATION, 1)),
            end=max((int(a + b) for a, b in zip(offsets, counts, strict=False)), default=0),
            separate=tags.get(_PLANAR) == 2,
            opened=opened,
            geographic=geographic,
            scaling=parse_scaling(tags.get(_METADATA), samples),
            moved=page is not None,
            told=_PHOTOMETRIC in tags,
            sparse=0 in offsets or (compression != _UNCOMPRESSED and 0 in counts),
            empty=empty,
        )
    except KeyError as error:
        raise ValueError(f"a damaged TIFF: its tag {error} is missing") from error
    except (TypeError, SyntaxError, OSError, OverflowError, struct.error) as error:
        raise ValueError(f"a damaged TIFF ({error})") from error


def _usual_photometric(samples: int, compression: int) -> int:
    """Of a file that does not say it, as libtiff has it."""
    if samples >= 3:
        return RGB
    return MIN_IS_WHITE if compression in _FAX else MIN_IS_BLACK


def _usual_extra(
    photometric: int, samples: int, bits: tuple[int, ...], formats: tuple[int, ...]
) -> tuple[int, ...]:
    """Of a file that does not say it: a fourth channel is alpha, as Pillow and libtiff have it.

    OpenCV writes such files, of 8 and of 16 bits. Other types of number are rather a fourth band.
    """
    pictures = photometric == RGB and samples == 4 and set(bits) <= {8, 16}
    return (UNASSOCIATED,) if pictures and set(formats) == {_UNSIGNED} else ()


def is_geotiff(data: bytes) -> bool:
    """Whether it is a GeoTIFF, or written by GDAL, in grey, RGB or bands without a meaning.

    Raises:
        ValueError: a damaged file.
    """
    header = tiff_header(io.BytesIO(data))
    known = header.photometric in (MIN_IS_BLACK, RGB) and header.orientation == 1
    return header.geographic and known and min(header.bits) >= 8


def _all(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)
