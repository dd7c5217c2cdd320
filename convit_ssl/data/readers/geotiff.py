"""GeoTIFF by rasterio: bands by name, "no data", scale and offset, and windows of large scenes."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.axes import planar_header
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.gdal import picture_mask, scaling, shared_mask
from convit_ssl.data.reading.planes import ALPHA, MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import ImageHeader, check_size
from convit_ssl.data.reading.regions import Scene
from convit_ssl.data.reading.value_range import Reading

_DRIVER = "GTiff"  # no other: some formats name further files to read
_COLOURS = {
    ColorInterp.gray: "grey",
    ColorInterp.red: "R",
    ColorInterp.green: "G",
    ColorInterp.blue: "B",
    ColorInterp.alpha: ALPHA,
}
_PICTURE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_SIDECARS = (".msk", ".aux.xml")  # where GDAL writes masks and metadata beside a file
_DEGREE = 111_320.0  # metres of a degree of latitude


def _open(path: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, driver=_DRIVER)


_FILES = Handles(_open)


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size and kind of number, without the pixels."""
    data = _FILES.get(file.local())
    scaled = scaling(data.scales, data.offsets) is not None
    dtype = np.dtype(np.float32 if scaled else data.dtypes[0])
    return planar_header(data.height, data.width, data.count, dtype)


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """All bands, with their scale and offset applied.

    A band has no data where the file's mask or the band's "no data" value says so.

    Raises:
        ValueError: over 64 bands, bands of different types, palettes or complex numbers.
    """
    if file.data is None or any(os.path.isfile(file.path + end) for end in _SIDECARS):
        return _region(_FILES.get(file.local()), None, None)
    with MemoryFile(file.data) as memory, memory.open(driver=_DRIVER) as data:
        return _region(data, None, None)


def _region(data: Any, window: Any, size: tuple[int, int] | None) -> Planes:
    types = set(data.dtypes)
    if data.count > MOST_CHANNELS:
        raise ValueError(f"a GeoTIFF of {data.count} bands; {MOST_CHANNELS} at most are read")
    if len(types) > 1 or np.dtype(next(iter(types))).kind not in "uif":
        raise ValueError(f"a GeoTIFF of bands of {', '.join(sorted(types))}")
    if data.colorinterp[0] == ColorInterp.palette:
        raise ValueError("a GeoTIFF of numbers of colours (palette); convert it to grey or RGB")
    height, width = size or (data.height, data.width)
    check_size(width, height)
    shape = None if size is None else (data.count, height, width)
    values = data.read(window=window, out_shape=shape, resampling=Resampling.average)
    values = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    if (scales := scaling(data.scales, data.offsets)) is not None:
        values = scales.apply(values)
    return Planes(values, band_names(data), _valid(data, window, shape), spacing=_spacing(data))


def _valid(data: Any, window: Any, shape: tuple[int, int, int] | None) -> Any:
    """(H, W) of all bands, or (H, W, bands) where they differ; None where everything is data."""
    flags = data.mask_flag_enums
    if all(len(each) == 1 and each[0].name == "all_valid" for each in flags):
        return None
    if any(flag.name == "nodata" for each in flags for flag in each):
        masks = np.moveaxis(data.read_masks(window=window, out_shape=shape), 0, -1) != 0
        picture = data.colorinterp[:3] == _PICTURE and np.dtype(data.dtypes[0]).kind == "u"
        return picture_mask(masks) if picture else shared_mask(masks)
    mask = data.dataset_mask(window=window, out_shape=None if shape is None else shape[1:])
    return shared_mask(mask != 0)


def band_names(data: Any) -> tuple[str, ...]:
    """Descriptions of the bands; of bands without one their colours, or ``band4``."""
    pairs = zip(data.descriptions, data.colorinterp, strict=True)
    names = tuple(
        (text or "").strip() or _COLOURS.get(colour) or f"band{number}"
        for number, (text, colour) in enumerate(pairs, 1)
    )
    if data.count == 1:
        return ("grey",) if not (data.descriptions[0] or "").strip() else names
    # "grey" of several bands is GDAL's word for the first of bands without a meaning.
    names = tuple(f"band{n}" if name == "grey" else name for n, name in enumerate(names, 1))
    return names if len(set(names)) == len(names) else ()


def _spacing(data: Any) -> tuple[float, float] | None:
    """(down, across) of a pixel in mm on the ground."""
    if data.crs is None or data.transform.is_identity:
        return None
    turned = data.transform
    across, down = math.hypot(turned.a, turned.d), math.hypot(turned.b, turned.e)
    if data.crs.is_geographic:
        latitude = turned.f + turned.d * data.width / 2 + turned.e * data.height / 2
        across *= _DEGREE * math.cos(math.radians(latitude))
        down *= _DEGREE
    else:
        factor = data.crs.linear_units_factor[1] or 1.0
        across, down = across * factor, down * factor
    return (down * 1000, across * 1000) if min(down, across) > 0 else None


class GeoScene(Scene):
    """A scene, read by windows; GDAL chooses the overview."""

    def __init__(self, path: str) -> None:
        self._data = _FILES.get(path)
        super().__init__(self._data.height, self._data.width, _spacing(self._data))

    def region(self, x: int, y: int, width: int, height: int, scale: float = 1.0) -> Planes:
        """A rectangle at 1/scale of its size; the mean of the pixels that have data."""
        size = max(1, round(height / scale)), max(1, round(width / scale))
        planes = _region(self._data, Window(x, y, width, height), size)
        if self.spacing is not None:
            planes.spacing = (
                self.spacing[0] * height / size[0],
                self.spacing[1] * width / size[1],
            )
        return planes

    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle of the full image."""
        return self.region(x, y, width, height)

    def interest(self, longest: int = 1024) -> Any:
        """Where there is data in any band."""
        scale = max(1.0, max(self.height, self.width) / longest)
        valid = self.region(0, 0, self.width, self.height, scale).valid
        return valid.any(axis=-1) if valid is not None and valid.ndim == 3 else valid


def scene(file: ImageFile) -> GeoScene:
    """The scene, of which windows are read."""
    return GeoScene(file.local())
