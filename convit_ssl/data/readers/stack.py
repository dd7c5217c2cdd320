"""Stacks and pyramids in TIFF, OME-TIFF and ImageJ files, by tifffile.

Planes along z, t, or pages without a name are images; channels and samples are channels. A part
says which plane is meant (``z=3,t=0``), at which level of a pyramid (``level=2``), and along which
axes the planes are channels (``z=channels``).
"""

from __future__ import annotations

import io
import logging
import re
import threading
from itertools import product
from typing import Any

import numpy as np
import tifffile

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.axes import Axes, parse_axes, planar_header
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.planes import MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import ImageHeader, Values, check_size
from convit_ssl.data.reading.regions import Scene
from convit_ssl.data.reading.value_range import Reading

# tifffile's letters of the axes; what it does not know (Q, I and others) are pages.
_NAMES = {"Z": "z", "T": "t", "C": "c", "S": "s", "Y": "y", "X": "x"}
_MM = {"nm": 1e-6, "µm": 1e-3, "um": 1e-3, "micron": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
_CENTIMETRE = 3  # TIFF's ResolutionUnit


class _Missing(logging.Handler):
    """Notes that tifffile did not find a page, which it logs and goes without."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found = False

    def emit(self, record: logging.LogRecord) -> None:
        own = record.thread == threading.get_ident()
        self.found = self.found or (own and "invalid page offset" in record.getMessage())


def _open(path: str) -> tifffile.TiffFile:
    missing = _Missing()
    log = logging.getLogger("tifffile")
    log.addHandler(missing)
    try:
        file = tifffile.TiffFile(path)
        len(file.pages)
    finally:
        log.removeHandler(missing)
    if missing.found:
        file.close()
        raise ValueError("the TIFF is cut off: some of its pages are missing")
    return file


_FILES = Handles(_open)


def _file(file: ImageFile) -> tifffile.TiffFile:
    if file.data is not None:
        return tifffile.TiffFile(io.BytesIO(file.data))
    return _FILES.get(file.local())


def parts(file: ImageFile, spec: str) -> list[str]:
    """Planes of a stack.

    Args:
        file: the stack.
        spec: ``all``, ``z``, ``t:10`` (every tenth), ``page``, ``z:channels``, ``level:2``, or
            several of these with commas.

    Raises:
        UserError: another axis, or one that the file does not have.
    """
    if spec in ("", "first"):
        return []
    wanted = parse_axes(spec)
    tiff = _file(file)
    fixed = {"level": str(wanted.level)} if wanted.level else {}
    fixed |= dict.fromkeys(wanted.channels, "channels")
    found = []
    for number in range(len(tiff.series) if wanted.series else 1):
        axes = _axes(tiff.series[number])
        named = {"series": str(number)} if number else {}
        places = axes.places(wanted, file.path)
        for place in product(*places.values()):
            chosen = named | dict(zip(places, map(str, place), strict=True)) | fixed
            found.append(",".join(f"{name}={value}" for name, value in chosen.items()))
    return [part for part in found if part]


def _axes(series: Any) -> Axes:
    """The axes by our names, in the file's order; several without a name are one after another."""
    names: list[str] = []
    for letter in series.axes:
        name = _NAMES.get(letter, "page")
        names.append(name if name not in names else f"{name}{'b' * names.count(name)}")
    return Axes(tuple(names), tuple(int(size) for size in series.shape))


def _level(series: Any, part: str) -> Any:
    number = int(part_fields(part).get("level", 0))
    if not 0 <= number < len(series.levels):
        raise ValueError(f"it has {len(series.levels)} levels, and no level {number}")
    return series.levels[number]


def _series(tiff: tifffile.TiffFile, part: str) -> Any:
    number = int(part_fields(part).get("series", 0))
    if not 0 <= number < len(tiff.series):
        raise ValueError(f"it has {len(tiff.series)} series, and no series {number}")
    return tiff.series[number]


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size and kind of number, without the pixels."""
    series = _level(_series(_file(file), part), part)
    axes = _axes(series)
    return planar_header(
        axes.size("y"), axes.size("x"), axes.count(part_fields(part)), np.dtype(series.dtype)
    )


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One plane of a stack with its channels.

    Raises:
        ValueError: no such plane, or over 64 channels.
    """
    tiff = _file(file)
    whole = _series(tiff, part)
    series, fields = _level(whole, part), part_fields(part)
    axes = _axes(series)
    count = axes.count(fields)
    if count > MOST_CHANNELS:
        raise ValueError(f"a stack of {count} channels; {MOST_CHANNELS} at most are read")
    check_size(axes.size("x"), axes.size("y"))
    chosen = axes.chosen(fields)
    values = _planes(series, axes, chosen)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    names = _names(tiff, count, axes, fields)
    inverted = int(series.keyframe.photometric) == 0
    spacing = scaled_spacing(spacing_of(tiff), whole.shape, series.shape, axes)
    return Planes(np.ascontiguousarray(values), names, inverted=inverted, spacing=spacing)


def scaled_spacing(
    spacing: tuple[float, float] | None, full: Any, shape: Any, axes: Axes
) -> tuple[float, float] | None:
    """The pixel size of a level, from that of the full image."""
    if spacing is None:
        return None
    y, x = axes.names.index("y"), axes.names.index("x")
    return spacing[0] * full[y] / shape[y], spacing[1] * full[x] / shape[x]


def _planes(series: Any, axes: Axes, chosen: dict[str, int | None]) -> Values:
    """(H, W, C) of the chosen planes; pages that are not asked for are not read."""
    inner = _inner(series, axes)
    outer = axes.names[: len(axes.names) - inner]
    sizes = axes.shape[: len(outer)]
    if series.dataoffset is None and len(series.pages) == int(np.prod(sizes, dtype=int)):
        ranges = [
            range(size) if (place := chosen[name]) is None else (place,)
            for name, size in zip(outer, sizes, strict=True)
        ]
        pages = [
            series.pages[int(np.ravel_multi_index(place, sizes)) if sizes else 0]
            for place in product(*ranges)
        ]
        values = np.stack([page.asarray(maxworkers=1) for page in pages])
        kept = [len(each) for each in ranges]
        values = values.reshape(*kept, *axes.shape[len(outer) :])
    else:
        values = _stored(series)
        cut: list[Any] = [slice(None) if chosen[name] is None else [chosen[name]] for name in outer]
        for position, index in enumerate(cut):
            values = values[(slice(None),) * position + (index,)]
    return axes.to_planes(np.asarray(values), chosen)


def _inner(series: Any, axes: Axes) -> int:
    """How many of the last axes lie within one page."""
    return min(len(axes.names), 2 + sum(name == "s" for name in axes.names[-3:]))


def _stored(series: Any) -> Values:
    """All pixels; mapped to memory where they lie in one piece."""
    if series.dataoffset is not None and (path := getattr(series.parent.filehandle, "path", "")):
        kind = np.dtype(series.dtype).newbyteorder(series.parent.byteorder)
        try:
            return np.memmap(path, kind, "r", series.dataoffset, tuple(series.shape))
        except (OSError, ValueError):
            pass
    return np.asarray(series.asarray(maxworkers=1))


def _names(
    tiff: tifffile.TiffFile, count: int, axes: Axes, fields: dict[str, str]
) -> tuple[str, ...]:
    if count == 1:
        return ("grey",)
    if "channels" in fields.values():
        return ()
    names = channel_names(tiff.ome_metadata if tiff.is_ome else None)
    if len(names) == count:
        return names
    return ("R", "G", "B", "A")[:count] if axes.has("s") and count in (3, 4) else ()


def channel_names(ome: str | None) -> tuple[str, ...]:
    """Names of the channels in an OME header, if all of them have one."""
    return tuple(re.findall(r"<Channel\b[^>]*?\bName=\"([^\"]+)\"", ome or ""))


def spacing_of(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    """(down, across) of a pixel in mm: of OME and ImageJ headers, and of resolutions in cm.

    Resolutions in inches are those of a printer or a default, and not believed.
    """
    if tiff.is_ome and tiff.ome_metadata:
        return ome_spacing(tiff.ome_metadata)
    tags = tiff.pages[0].tags  # type: ignore[union-attr]
    down, across = (tags.get(name) for name in ("YResolution", "XResolution"))
    if down is None or across is None:
        return None
    found = tiff.imagej_metadata if tiff.is_imagej else None
    unit = _MM.get(str((found or {}).get("unit", "")).replace("\\u00B5", "µ"))
    if unit is None and found is None and int(tags.valueof("ResolutionUnit", 2)) == _CENTIMETRE:
        unit = _MM["cm"]
    sizes = [_per(tag.value) for tag in (down, across)]
    if unit is None or None in sizes:
        return None
    return float(sizes[0] or 0) * unit, float(sizes[1] or 0) * unit


def _per(value: Any) -> float | None:
    """The size of a pixel, of a resolution in pixels a unit."""
    over, under = (value if isinstance(value, tuple) else (value, 1))[:2]
    return float(under) / float(over) if over and under else None


def ome_spacing(metadata: str) -> tuple[float, float] | None:
    """(down, across) of a pixel in mm in an OME header."""
    sizes = []
    for axis in "YX":
        size = re.search(rf"\bPhysicalSize{axis}=\"([^\"]+)\"", metadata)
        unit = re.search(rf"\bPhysicalSize{axis}Unit=\"([^\"]+)\"", metadata)
        factor = _MM.get((unit[1] if unit else "µm").replace("&#181;", "µ").replace("μ", "µ"))
        if size is None or factor is None:
            return None
        try:
            sizes.append(float(size[1]) * factor)
        except ValueError:
            return None
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


class TiffScene(Scene):
    """The first plane of a TIFF, of which only the strips or tiles that are needed are read."""

    def __init__(self, path: str) -> None:
        self._tiff = _FILES.get(path)
        self._series = self._tiff.series[0]
        self._axes = _axes(self._series)
        super().__init__(
            self._axes.size("y"), self._axes.size("x"), spacing_of(self._tiff),
            [self._axes.size("x") / _axes(level).size("x") for level in self._series.levels],
        )  # fmt: skip

    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle in the pixels of a level."""
        series = self._series.levels[level]
        axes = _axes(series)
        fields: dict[str, str] = {}
        names = _names(self._tiff, axes.count(fields), axes, fields)
        inverted = int(series.keyframe.photometric) == 0
        chosen = axes.chosen(fields)
        outer = axes.names[: len(axes.names) - _inner(series, axes)]
        sizes = axes.shape[: len(outer)]
        if series.dataoffset is not None or len(series.pages) != int(np.prod(sizes, dtype=int)):
            values = axes.to_planes(_stored(series), chosen)[y : y + height, x : x + width]
            return Planes(np.array(values), names, inverted=inverted)
        ranges = [
            range(size) if (place := chosen[name]) is None else (place,)
            for name, size in zip(outer, sizes, strict=True)
        ]
        parts = [
            _rectangle(
                self._tiff,
                _page(series, place, sizes),
                (x, y, width, height),
            )
            for place in product(*ranges)
        ]
        return Planes(np.concatenate(parts, axis=-1), names, inverted=inverted)


def _page(series: Any, place: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
    return series.pages[int(np.ravel_multi_index(place, sizes)) if sizes else 0].aspage()


def _rectangle(tiff: tifffile.TiffFile, page: Any, box: tuple[int, int, int, int]) -> Values:
    """(height, width, samples) of a page, from the segments that the box touches."""
    x, y, width, height = box
    samples = int(page.samplesperpixel)
    out = np.zeros((height, width, samples), page.dtype)
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (
        page.rowsperstrip, page.imagewidth
    )  # fmt: skip
    across = -(-page.imagewidth // wide)
    separate = int(page.planarconfig) == 2 and samples > 1
    a_plane = across * -(-page.imagelength // high)
    numbers = [
        plane * a_plane + row * across + column
        for plane in range(samples if separate else 1)
        for row in range(y // high, -(-(y + height) // high))
        for column in range(x // wide, -(-(x + width) // wide))
    ]
    places = [page.dataoffsets[number] for number in numbers]
    counts = [page.databytecounts[number] for number in numbers]
    tables, decode = page.jpegtables, page.decode  # both may read from the file
    for number, offset, count in zip(numbers, places, counts, strict=True):
        tiff.filehandle.seek(offset)
        segment, index, _ = decode(tiff.filehandle.read(count), number, jpegtables=tables)
        if segment is None:
            continue
        plane, _, top, left, _ = index
        found = segment[0]
        down = slice(max(top, y), min(top + found.shape[0], y + height))
        along = slice(max(left, x), min(left + found.shape[1], x + width))
        taken = found[down.start - top : down.stop - top, along.start - left : along.stop - left]
        channels = slice(plane, plane + 1) if separate else slice(None)
        out[down.start - y : down.stop - y, along.start - x : along.stop - x, channels] = taken
    return out


def scene(file: ImageFile) -> TiffScene:
    """The file as a scene of which rectangles are read."""
    return TiffScene(file.local())
