"""Readers of further formats, chosen by content; each is imported when a file needs it.

A reader is a module with ``read(file, part, reading)``, which gives `Planes`, and, where a file
may hold several images, ``parts(file, spec)``, which names them.
"""

from __future__ import annotations

import functools
import gzip
import importlib
import importlib.util
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.data.listing.part_names import JOINT, split_part
from convit_ssl.data.loading.paths import is_url, split_member
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import KINDS, PNG_MAGIC, ImageHeader
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

# First bytes of what Pillow and tifffile read, whatever the file is called.
_PICTURES = (PNG_MAGIC, b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")
# NIfTI in two files, of which other formats use the names as well.
PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
_TIFF = (".tif", ".tiff", ".btf", ".tf8")
START = 400  # bytes that tell what a file is


class MissingReaderError(ValueError):
    """A file of a known format whose reader is not installed; the message says what to install."""


@dataclass
class ImageFile:
    """A file that is read whole, or by a library that takes its path.

    Attributes:
        path: without the part.
        data: its bytes, where they were read before.
    """

    path: str
    data: bytes | None = None

    def bytes(self) -> bytes:
        """The whole file."""
        if self.data is None:
            self.data = read_bytes(self.path)
        return self.data

    def local(self) -> str:
        """The path, for libraries that read the file themselves.

        Raises:
            ValueError: it is at a URL or in a shard.
        """
        if is_url(self.path) or split_member(self.path) is not None:
            raise ValueError(
                "files of this format can only be read from disk, not from URLs or shards"
            )
        return self.path


@functools.cache
def _is_importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class Reader:
    """One entry of the table.

    Attributes:
        name: as in ``data.reader``.
        package: what has to be importable.
        extra: of this project that installs it.
        suffixes: of the files that it reads.
        claims: whether the first bytes of a file are of this format.
        by_path: whether it reads the file itself, so that nobody reads the bytes before.
        alone: its files count as images only in folders that hold no other images: arrays and
            films often lie beside images as something else.
    """

    name: str
    package: str
    extra: str
    suffixes: tuple[str, ...]
    claims: Callable[[bytes], bool]
    by_path: bool = False
    alone: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        return _is_importable(self.package)

    @property
    def advice(self) -> str:
        """What to install."""
        return f"pip install 'convit_ssl[{self.extra}]'"

    @property
    def missing(self) -> str:
        """What to say where its package is not installed."""
        what = f"{self.suffixes[0]} files" if self.suffixes else f"TIFF with the reader {self.name}"
        return f"reading {what} needs {self.advice}"

    def module(self) -> Any:
        """The module that reads.

        Raises:
            MissingReaderError: its package is not installed.
        """
        if not self.installed:
            raise MissingReaderError(self.missing)
        return importlib.import_module(f"convit_ssl.data.readers.{self.name}")


def _nifti(start: bytes) -> bool:
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, START)
        except (zlib.error, gzip.BadGzipFile):
            return False
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0"


def _dicom(start: bytes) -> bool:
    return start[128:132] == b"DICM"


def _fits(start: bytes) -> bool:
    return start[:9] == b"SIMPLE  ="


def _heif(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"heis")


def _numpy(start: bytes) -> bool:
    return start[:6] == b"\x93NUMPY"


def _jxl(start: bytes) -> bool:
    return start[:2] == b"\xff\x0a" or start[:12] == b"\0\0\0\x0cJXL \r\n\x87\n"


def _video(start: bytes) -> bool:
    """MP4 and MOV (not HEIF or AVIF, which share their boxes), Matroska, AVI."""
    if start[4:8] == b"ftyp":
        return start[8:11] in (b"iso", b"mp4", b"qt ", b"M4V", b"avc", b"3gp")
    return start[:4] == b"\x1aE\xdf\xa3" or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")


def _by_name(start: bytes) -> bool:
    """Of formats that share their first bytes with others, or are folders."""
    return False


_SLIDES = (".svs", ".ndpi", ".scn", ".bif")
_FILMS = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg")
READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("fits", "astropy", "astronomy", (".fits", ".fit", ".fts"), _fits),
        Reader("heif", "pillow_heif", "photos", (".heic", ".heif"), _heif),
        Reader("numpy", "numpy", "", (".npy", ".npz"), _numpy, alone=True),
        Reader("dicom", "pydicom", "medical", (".dcm", ".dicom", ".ima"), _dicom),
        Reader("nifti", "nibabel", "medical", (".nii", ".nii.gz"), _nifti, by_path=True),
        Reader("slide", "tiffslide", "microscopy", _SLIDES, _by_name, by_path=True),
        Reader("zarr", "zarr", "microscopy", (".zarr",), _by_name, by_path=True),
        Reader("video", "av", "video", _FILMS, _video, by_path=True, alone=True),
        Reader("jxl", "pillow_jxl", "photos", (".jxl",), _jxl),
        # Of TIFF, which Pillow and tifffile read: planes of stacks, bands and windows.
        Reader("stack", "tifffile", "tiff", (), _by_name, by_path=True),
        Reader("geotiff", "rasterio", "geo", (), _by_name, by_path=True),
        Reader("joined", "numpy", "", (), _by_name, by_path=True),
    )
}
SUFFIXES = {suffix: reader for reader in READERS.values() for suffix in reader.suffixes}


def check_reader(name: str) -> None:
    """Refuse a reader that there is not.

    Raises:
        UserError: with the names, or with what to install.
    """
    if name == "auto":
        return
    if name not in READERS:
        raise UserError(f"data.reader={name} is unknown; use auto or {', '.join(READERS)}")
    if not READERS[name].installed:
        raise UserError(f"data.reader={name} needs {READERS[name].advice}")


def reader_by_name(path: str) -> Reader | None:
    """The reader of a file by its suffix; None for what Pillow and tifffile read."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.endswith(".nii.gz"):
        return SUFFIXES[".nii.gz"]
    if name.endswith(PAIR):
        return READERS["nifti"]
    dot = name.rfind(".")
    return SUFFIXES.get(name[dot:]) if dot > 0 else None


def reader_by_content(start: bytes) -> Reader | None:
    """The reader of a file by its first bytes."""
    return next((reader for reader in READERS.values() if reader.claims(start)), None)


def is_tiff_name(path: str) -> bool:
    """Whether a file is a TIFF by its name, and not that of a slide."""
    return path.lower().endswith(_TIFF)


def reader_by_path(path: str) -> Reader | None:
    """The reader of an image by its path; None for what Pillow and tifffile read.

    Args:
        path: with the part that is meant, if any: planes of a TIFF have a reader of their own.
    """
    if JOINT in path:
        return READERS["joined"]
    file, part = split_part(path)
    return READERS["stack"] if part and is_tiff_name(file) else reader_by_name(file)


def choose_reader(path: str, start: bytes | None, name: str = "auto") -> Reader | None:
    """The reader of a file; None for what Pillow and tifffile read.

    Args:
        path: with the part that is meant, if any.
        start: the file's first bytes, or None where its name has to do.
        name: of the reader, as in ``data.reader``.

    Raises:
        MissingReaderError: it is known, and not installed.
    """
    if name != "auto" and JOINT not in path:
        return READERS.get(name)
    found = None if start is None else reader_by_content(start)
    if found is None:
        found = reader_by_path(path)
        # A picture under the name of another format; slides and stacks are TIFF by content.
        if start and start.startswith(_PICTURES) and found is not None:
            found = found if found.claims is _by_name else None
    if found is not None and not found.installed:
        raise MissingReaderError(found.missing)
    return found


def reads_by_path(path: str, reading: Reading) -> bool:
    """Whether the file's bytes need not be read beforehand."""
    if "#tile=" in path:
        return True
    own = reader_by_path(path)
    named = own if JOINT in path else READERS.get(reading.reader) or own
    file, part = split_part(path)
    if named is READERS["dicom"] and part:  # one frame of many: the others need not be read
        return named.installed and os.path.isfile(file)
    return named is not None and named.by_path


def read_special(path: str, data: bytes | None, reading: Reading) -> Planes | None:
    """An image of a format that Pillow and tifffile do not read; None of any other.

    Args:
        path: with the part that is meant, if any.
        data: the file's bytes; None lets the reader read them.
        reading: how to read.

    Raises:
        Exception: whatever the library raises for a damaged file.
    """
    reader = choose_reader(path, None if data is None else data[:START], reading.reader)
    if reader is None:
        return None
    file, part = split_part(path)
    planes: Planes = reader.module().read(ImageFile(file, data), part, reading)
    return planes


def special_header(reader: Reader, file: ImageFile, part: str) -> ImageHeader:
    """Size and kind of number of an image; it is read where the format has no cheaper way."""
    module = reader.module()
    if hasattr(module, "header"):
        header: ImageHeader = module.header(file, part)
        return header
    return header_of(module.read(file, part, Reading()))


def header_of(planes: Planes) -> ImageHeader:
    """Size, colour and kind of number of an image that was read."""
    height, width, channels = planes.values.shape
    dtype = planes.values.dtype
    kind = "8 bits" if dtype == np.uint8 else KINDS.get(dtype.kind, "float")
    mode = {"float": "F", "8 bits": "L"}.get(kind, "I;16")
    return ImageHeader(height, width, channels == 1, kind, mode if channels == 1 else "RGB")


def parts_of(path: str, reading: Reading) -> list[str]:
    """The images in a file that holds several, by name; empty for a file that is one image.

    TIFF is looked into only where ``data.parts`` asks for it.

    Raises:
        Exception: whatever the library raises for a damaged file.
    """
    reader = READERS.get(reading.reader) or reader_by_path(path)
    if reader is None and reading.parts and is_tiff_name(path):
        reader = READERS["stack"]
    if reader is None or not reader.installed:
        return []
    module = reader.module()
    return list(module.parts(ImageFile(path), reading.parts)) if hasattr(module, "parts") else []
