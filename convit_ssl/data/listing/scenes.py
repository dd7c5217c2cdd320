"""Tiles of large images: slides, scenes and whatever is larger than what a network sees.

A tile is a part of its file: ``slide.svs#tile=256,x=1024,y=512,scale=2`` is 512 pixels of the full
image, at half the size. Every file is covered by a grid of tiles, each of which counts as an image;
in training each is moved, at another scale and turned, by numbers that follow from the seed, the
epoch and the tile alone.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from convit_ssl.data.augment.randomness import sample_seed
from convit_ssl.data.listing.part_names import part_fields, split_part
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import (
    READERS,
    START,
    ImageFile,
    Reader,
    choose_reader,
    reader_by_path,
)
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import ImageHeader
from convit_ssl.data.reading.regions import Scene, WholeScene
from convit_ssl.data.reading.tiff_tags import is_tiff, tiff_header
from convit_ssl.data.reading.value_range import Reading

_KEPT_BYTES = 512 * 2**20  # of scenes that can only be read as a whole, in each process
_OWN_DRAWS = 0x7113  # keeps tiles apart from what views are drawn with
_SLIDE_TILE = 256  # of slides without ``data.tiles``


def is_tile(path: str) -> bool:
    """Whether a path names a tile."""
    return "#tile=" in path


def tile_size(path: str, reading: Reading) -> int:
    """The side of the tiles of a file; 0 where it is read as a whole."""
    if reading.tiles:
        return reading.tiles
    reader = READERS.get(reading.reader) or reader_by_path(path)
    return _SLIDE_TILE if reader is READERS["slide"] and not reading.parts else 0


def tiles_of(path: str, reading: Reading) -> list[str]:
    """The tiles that cover a file, by name; empty for a file that is no larger than a tile.

    Of slides only those with tissue, of scenes only those with data.

    Raises:
        Exception: whatever the library raises for a damaged file.
    """
    size = tile_size(path, reading)
    reader = READERS.get(reading.reader) or reader_by_path(path)
    if reader is not None and (not reader.installed or not _reads_regions(reader)):
        return []
    scene = open_scene(path, reading)
    scale = reading.tile_scales[0] if reading.tile_scales else 1
    side = size * scale
    if scene.height <= side and scene.width <= side:
        return []
    found = scene.interest()
    tops, lefts = _starts(scene.height, side), _starts(scene.width, side)
    return [
        f"tile={size},x={left},y={top},scale={scale}"
        for top in tops
        for left in lefts
        if found is None or _share(found, scene, left, top, side) >= reading.tile_share
    ]


def _reads_regions(reader: Reader) -> bool:
    """Whether a file of this reader is one large image, and not a volume or a film."""
    return reader.name not in ("dicom", "nifti", "video")


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin; the last one ends where the image does."""
    return [min(start, max(0, length - side)) for start in range(0, length, side)]


def _share(found: Any, scene: Scene, left: int, top: int, side: int) -> float:
    """The part of a tile in which there is something."""
    down, across = found.shape[0] / scene.height, found.shape[1] / scene.width
    rows = slice(int(top * down), max(int(top * down) + 1, math.ceil((top + side) * down)))
    columns = slice(
        int(left * across), max(int(left * across) + 1, math.ceil((left + side) * across))
    )
    return float(found[rows, columns].mean())


def draw_tile(path: str, reading: Reading, seed: int, epoch: int, index: int, repeat: int) -> str:
    """A tile near another one: moved by up to half its side, at a scale and an angle of its own.

    Args:
        path: of a tile; other paths come back as they are.
        reading: with the scales to choose from, and whether tiles are turned.
        seed: of the run; the draw follows from these four numbers alone.
        epoch: of training.
        index: of the tile.
        repeat: of the tile within the epoch.
    """
    if not is_tile(path):
        return path
    file, part = split_part(path)
    fields = part_fields(part)
    size, scale = int(fields["tile"]), int(fields["scale"])
    state = sample_seed(seed, epoch, index, repeat, _OWN_DRAWS)
    draws = np.random.default_rng(state)
    across, down, which, angle = draws.random(4)
    scales = reading.tile_scales or (scale,)
    chosen = scales[int(which * len(scales))]
    side, other = size * scale, size * chosen
    x = round(int(fields["x"]) + side * across - other / 2)
    y = round(int(fields["y"]) + side * down - other / 2)
    turn = f",turn={int(angle * 360)}" if reading.tile_rotation else ""
    return f"{file}#tile={size},x={x},y={y},scale={chosen}{turn}"


def read_tile(path: str, reading: Reading) -> Planes:
    """The pixels of a tile. One that lies partly outside is moved inside.

    Raises:
        Exception: whatever the library raises for a damaged file.
    """
    file, part = split_part(path)
    fields = {name: int(value) for name, value in part_fields(part).items()}
    scene = open_scene(file, reading)
    size, scale, turn = fields["tile"], fields["scale"], fields.get("turn", 0)
    side = size * scale
    x, y = fields["x"], fields["y"]
    wide = math.ceil(side * math.sqrt(2.0)) if turn else side
    if turn and min(scene.height, scene.width) < wide:
        turn, wide = 0, side  # there is no room for the corners
    x, y = x - (wide - side) // 2, y - (wide - side) // 2
    width, height = min(wide, scene.width), min(wide, scene.height)
    x, y = min(max(x, 0), scene.width - width), min(max(y, 0), scene.height - height)
    planes = scene.region(x, y, width, height, scale)
    return _turned(planes, turn, size) if turn else planes


def _turned(planes: Planes, degrees: int, size: int) -> Planes:
    """The middle of an image after a turn; the image is larger by the root of two."""
    height, width = planes.values.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    turn: Any = cv2.getRotationMatrix2D(middle, degrees, 1.0)
    turn[:, 2] += (size - 1) / 2 - np.array(middle)

    def turned(values: Any, how: int) -> Any:
        wide = values if values.dtype in (np.uint8, np.uint16, np.float32) else values.astype(float)
        parts = [
            cv2.warpAffine(
                np.ascontiguousarray(wide[..., n]), turn, (size, size),
                flags=how, borderMode=cv2.BORDER_REFLECT_101,
            )
            for n in range(values.shape[-1])
        ]  # fmt: skip
        made = np.stack(parts, axis=-1)
        if made.dtype != values.dtype and values.dtype.kind in "ui":
            made = np.rint(made)
        return made.astype(values.dtype)

    valid = planes.valid
    if valid is not None:
        kept = turned(np.atleast_3d(valid).astype(np.uint8), cv2.INTER_NEAREST) > 0
        valid = kept[..., 0] if valid.ndim == 2 else kept
    return replace(planes, values=turned(planes.values, cv2.INTER_LINEAR), valid=valid)


def tile_header(path: str) -> ImageHeader:
    """Size and kind of number of a tile."""
    file, part = split_part(path)
    fields = {name: int(value) for name, value in part_fields(part).items()}
    from convit_ssl.data.reading.pixels import image_header

    side = fields["tile"] * fields["scale"]
    whole = image_header(file)
    return replace(
        whole,
        height=min(fields["tile"], max(1, round(min(side, whole.height) / fields["scale"]))),
        width=min(fields["tile"], max(1, round(min(side, whole.width) / fields["scale"]))),
    )


def open_scene(path: str, reading: Reading) -> Scene:
    """A file as a scene: by a reader of rectangles where there is one, or in memory as a whole."""
    if reading.reader == "auto":
        reader = reader_by_path(path)
        if reader is None and os.path.isfile(path):
            reader = _tiff_reader(path)
    else:
        reader = READERS.get(reading.reader)
    if reader is not None and hasattr(module := reader.module(), "scene"):
        scene: Scene = module.scene(ImageFile(path))
        return scene
    return _WHOLE.get(path, reading)


def _tiff_reader(path: str) -> Reader | None:
    """Of a TIFF: rasterio for scenes, tifffile for others; None where that is not installed."""
    with open(path, "rb") as file:
        start = file.read(START)
        if not is_tiff(start):
            return choose_reader(path, start)
        file.seek(0)
        header = tiff_header(file)
    if not header.windowed or header.orientation != 1 or min(header.bits) < 8:
        return None  # colours that Pillow turns into RGB
    if header.moved:
        return None  # the libraries would read its thumbnail
    plain = header.nodata is None and header.scaling is None
    for name, fits in (("geotiff", header.geographic), ("stack", plain)):
        if fits and READERS[name].installed:
            return READERS[name]
    return None


class _Whole:
    """Scenes in memory, up to `_KEPT_BYTES`; those used longest ago go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Planes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, reading: Reading) -> Scene:
        from convit_ssl.data.loading.storage import file_state
        from convit_ssl.data.readers import reads_by_path
        from convit_ssl.data.reading.channel_reading import read_planes

        key = (path, file_state(path), reading.reader, reading.exif_rotation)
        with self._lock:
            planes = self._kept.get(key)
            if planes is not None:
                self._kept.move_to_end(key)
                return WholeScene(planes)
        data = None if reads_by_path(path, reading) else read_bytes(path)
        planes = read_planes(path, data, reading)
        with self._lock:
            self._kept[key] = planes
            while (
                len(self._kept) > 1
                and sum(each.values.nbytes for each in self._kept.values()) > _KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return WholeScene(planes)


_WHOLE = _Whole()
