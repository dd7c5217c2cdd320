"""Zarr arrays and OME-Zarr images, which are folders, by zarr (2 and 3).

OME-Zarr says what the axes are, what the channels are called, and how large a pixel is. Of other
arrays the last two axes, or those beside the shortest, are the picture; the first axis of four
holds one image after another. Each array of a group that is not OME-Zarr is an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import zarr

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.axes import Axes, parse_axes, planar_header
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.planes import MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import ImageHeader, check_size
from convit_ssl.data.reading.regions import Scene
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

_MM = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0,
       "meter": 1000.0}  # fmt: skip


@dataclass(frozen=True)
class _Image:
    """One image of a store.

    Attributes:
        levels: arrays, the full image first.
        axes: of each.
        names: of the channels.
        spacing: (down, across) of a pixel of each level in mm, or None.
        separate: whether what lies along the first axis is images of its own, unasked.
    """

    levels: list[Any]
    axes: list[Axes]
    names: tuple[str, ...]
    spacing: list[tuple[float, float] | None]
    separate: bool = False


def _open(path: str) -> _Image | list[Any]:
    """The image of a store, or the arrays of a group that is not an image itself."""
    store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Array):
        return _plain(store)
    attributes: Any = dict(store.attrs)
    attributes = attributes.get("ome", attributes)
    if "multiscales" in attributes:
        return _ome(store, attributes)
    if "plate" in attributes:
        raise ValueError("an OME-Zarr plate; give the folders of its fields")
    arrays = _arrays(store)
    if not arrays:
        raise ValueError("a Zarr group that holds no arrays")
    return _plain(arrays[0]) if len(arrays) == 1 else arrays


def _arrays(group: Any) -> list[Any]:
    """All arrays in a group and the groups in it, in the order of their names."""
    found: list[Any] = []
    for key in sorted(group):
        inner = group[key]
        found += [inner] if isinstance(inner, zarr.Array) else _arrays(inner)
    return found


_OPENED: Handles[_Image | list[Any]] = Handles(_open)


def _image(path: str, part: str = "") -> _Image:
    """The image that a part names; of a group of arrays the first without a name."""
    found = _OPENED.get(path)
    if isinstance(found, list):
        number = int(part_fields(part).get("array", 0))
        if number >= len(found):
            raise ValueError(f"it has {len(found)} arrays, and no array {number}")
        return _plain(found[number])
    return found


def _plain(array: Any) -> _Image:
    shape = tuple(int(size) for size in array.shape)
    if len(shape) not in (2, 3, 4) or np.dtype(array.dtype).kind not in "buif":
        raise ValueError(
            f"a Zarr array of shape {shape} and type {array.dtype} is not an image; "
            "arrays of two to four axes are read, and more with OME-Zarr's metadata"
        )
    picture = shape[-3:]
    names: tuple[str, ...] = ("y", "x")
    if len(picture) == 3:
        names = ("c", "y", "x") if picture[0] < picture[2] else ("y", "x", "c")
    if len(shape) == 4:
        names = ("page", *names)
    return _Image([array], [Axes(names, shape)], (), [None], len(shape) == 4)


def _ome(group: Any, attributes: dict[str, Any]) -> _Image:
    scales = attributes["multiscales"][0]
    listed = scales.get("axes", list("tczyx"))
    names = tuple(str(a["name"] if isinstance(a, dict) else a).lower() for a in listed)
    units = [str(a.get("unit", "")) if isinstance(a, dict) else "" for a in listed]
    levels, axes, spacing = [], [], []
    for one in scales["datasets"]:
        array = group[one["path"]]
        own = names[-len(array.shape) :]
        if "x" not in own or "y" not in own:
            raise ValueError(f"an OME-Zarr image of the axes {', '.join(own)}")
        levels.append(array)
        axes.append(Axes(own, tuple(int(size) for size in array.shape)))
        spacing.append(_spacing(one, scales, own, units[-len(own) :]))
    channels = attributes.get("omero", {}).get("channels", [])
    labels = tuple(str(c.get("label") or c.get("name") or "") for c in channels)
    return _Image(levels, axes, labels if all(labels) else (), spacing)


def _spacing(
    one: dict[str, Any], scales: dict[str, Any], names: tuple[str, ...], units: list[str]
) -> tuple[float, float] | None:
    size = np.ones(len(names))
    for each in (*one.get("coordinateTransformations", ()),
                 *scales.get("coordinateTransformations", ())):  # fmt: skip
        if each.get("type") == "scale" and len(each["scale"]) == len(names):
            size = size * np.array(each["scale"], float)
    places = [names.index("y"), names.index("x")]
    factors = [_MM.get(units[place]) for place in places]
    if None in factors:
        return None
    down, across = (float(size[p]) * float(f or 0) for p, f in zip(places, factors, strict=True))
    return (down, across) if min(down, across) > 0 else None


def parts(file: ImageFile, spec: str) -> list[str]:
    """As of TIFF stacks; images along the first axis of four are read unasked.

    Raises:
        UserError: an axis that is not there.
    """
    opened = _OPENED.get(file.local())
    if isinstance(opened, list):
        if spec not in ("", "first", "all"):
            raise UserError(
                f"data.parts={spec}: {file.path} is a group of {len(opened)} arrays, each of which "
                "is an image; leave data.parts out"
            )
        return [f"array={n}" for n in range(1 if spec == "first" else len(opened))]
    image = opened
    if spec == "first" or (not spec and not image.separate):
        return []
    wanted = parse_axes(spec or "page")
    if wanted.level >= len(image.levels):
        raise UserError(f"data.parts={spec}: {file.path} has {len(image.levels)} levels")
    fixed = {"level": str(wanted.level)} if wanted.level else {}
    fixed |= dict.fromkeys(wanted.channels, "channels")
    places = image.axes[wanted.level].places(wanted, file.path)
    found = []
    for place in product(*places.values()):
        chosen = dict(zip(places, map(str, place), strict=True)) | fixed
        found.append(",".join(f"{name}={value}" for name, value in chosen.items()))
    return [part for part in found if part]


def _level(image: _Image, fields: dict[str, str]) -> int:
    number = int(fields.get("level", 0))
    if not 0 <= number < len(image.levels):
        raise ValueError(f"it has {len(image.levels)} levels, and no level {number}")
    return number


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size and kind of number, without the pixels."""
    image, fields = _image(file.local(), part), part_fields(part)
    level = _level(image, fields)
    axes = image.axes[level]
    kind = np.dtype(image.levels[level].dtype)
    return planar_header(axes.size("y"), axes.size("x"), axes.count(fields), kind)


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One plane with its channels; only its chunks are read.

    Raises:
        ValueError: no such plane or level, or over 64 channels.
    """
    image, fields = _image(file.local(), part), part_fields(part)
    level = _level(image, fields)
    axes = image.axes[level]
    return _rectangle(image, level, fields, (0, 0, axes.size("x"), axes.size("y")))


def _rectangle(
    image: _Image, level: int, fields: dict[str, str], box: tuple[int, int, int, int]
) -> Planes:
    axes, (x, y, width, height) = image.axes[level], box
    chosen = axes.chosen(fields)
    count = axes.count(fields)
    if count > MOST_CHANNELS:
        raise ValueError(f"a Zarr image of {count} channels; {MOST_CHANNELS} at most are read")
    check_size(width, height)
    index: list[int | slice] = []
    for name in axes.names:
        place = chosen.get(name)
        cut = {"y": slice(y, y + height), "x": slice(x, x + width)}.get(name)
        index.append(cut if cut is not None else slice(None) if place is None else place)
    values = np.asarray(image.levels[level][tuple(index)])
    kept = [n for n, i in zip(axes.names, index, strict=True) if isinstance(i, slice)]
    order = ["y", "x", *(n for n, place in chosen.items() if place is None)]
    values = values.transpose([kept.index(n) for n in order]).reshape(height, width, -1)
    values = values.astype(np.uint8) * np.uint8(255) if values.dtype.kind == "b" else values
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    names = image.names if len(image.names) == count else ()
    return Planes(values, ("grey",) if count == 1 else names, spacing=image.spacing[level])


class ZarrScene(Scene):
    """An image, of which only the chunks that are needed are read."""

    def __init__(self, path: str) -> None:
        self._image = _image(path)
        axes = self._image.axes
        super().__init__(
            axes[0].size("y"), axes[0].size("x"), self._image.spacing[0],
            [axes[0].size("x") / each.size("x") for each in axes],
        )  # fmt: skip

    def at_level(self, level: int, x: int, y: int, width: int, height: int) -> Planes:
        """A rectangle of a level."""
        return _rectangle(self._image, level, {}, (x, y, width, height))


def scene(file: ImageFile) -> ZarrScene:
    """The image as a scene."""
    return ZarrScene(file.local())
