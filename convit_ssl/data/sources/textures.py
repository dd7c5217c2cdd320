"""Procedural colour textures: a collection in colour that needs no download.

196 classes of 64 x 64 pixels, with 20 images in train, 5 in val and 5 in test. A class is a recipe:
one of seven kinds, its measures and two colours. From it one large field is drawn for each split,
with random numbers of its own, and the images of a split are crops of that field at different
places, sizes and lights. So no pixel of val or test is also in train: who recognises a class has
learnt what it looks like, not where a crop was cut.

The same seed gives the same pictures, whatever the versions of the libraries, so that figures on
them can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

NUM_CLASSES = 196
COUNTS = {"train": 20, "val": 5, "test": 5}  # images per class
SIDE = 64
VERSION = 2  # of the pictures; in the first one val was cut from the fields of train
CLASSES = tuple(f"texture_{number:03d}" for number in range(NUM_CLASSES))
_FIELD = 176  # side of the whole texture
_SEED = 5
_LIGHT = 0.12  # how much brightness and tint differ between images of a class

Field: TypeAlias = npt.NDArray[np.float32]
Random: TypeAlias = np.random.Generator
Drawing: TypeAlias = Callable[[Random], Field]


@dataclass(frozen=True)
class Crop:
    """Where an image was cut: the field's number (unique to its class and split) and a square."""

    field: int
    top: int
    left: int
    side: int


def load(_data_dir: str | os.PathLike[str] | None = None) -> dict[str, tuple[Any, Any]]:
    """All splits: images (N, 64, 64, 3) uint8 and their classes' numbers (N,)."""
    images = {
        split: np.empty((NUM_CLASSES, count, SIDE, SIDE, 3), np.uint8)
        for split, count in COUNTS.items()
    }
    for number in range(NUM_CLASSES):
        for split, pictures in images.items():
            pictures[number] = draw(number, split)[0]
    numbers = np.arange(NUM_CLASSES)
    return {
        split: (pictures.reshape(-1, SIDE, SIDE, 3), numbers.repeat(COUNTS[split]))
        for split, pictures in images.items()
    }


def draw(number: int, split: str) -> tuple[npt.NDArray[np.uint8], list[Crop]]:
    """The images of a class in a split, (N, 64, 64, 3), and where each was cut."""
    field = number * len(COUNTS) + list(COUNTS).index(split)
    random = np.random.default_rng([_SEED, 1, field])
    texture = _texture(np.random.default_rng([_SEED, 0, number]))(random)
    crops = []
    for _ in range(COUNTS[split]):
        top, left = (int(place) for place in random.integers(0, _FIELD - SIDE - 16, 2))
        crops.append(Crop(field, top, left, int(random.integers(SIDE - 8, SIDE + 16))))
    return np.stack([_photograph(texture, crop, random) for crop in crops]), crops


def _texture(recipe: Random) -> Drawing:
    """What draws a class: a field in two colours, (176, 176, 3) in 0..255 and a little beyond."""
    palette = np.random.default_rng(_SEED).uniform(20, 235, (40, 2, 3))
    colours = palette[recipe.integers(len(palette))] + recipe.normal(0, 14, (2, 3))
    contrast, doubled = recipe.uniform(0.7, 2.5), recipe.random() < 0.5
    first, second = _kind(recipe), _kind(recipe)

    def draw_field(random: Random) -> Field:
        share = 1 / (1 + np.exp(-contrast * _standardised(first(random))))[..., None]
        texture = colours[0] * (1 - share) + colours[1] * share
        if doubled:
            texture = texture * (1 + 0.12 * _standardised(second(random))[..., None])
        return np.asarray(texture, np.float32)

    return draw_field


def _photograph(texture: Field, crop: Crop, random: Random) -> npt.NDArray[np.uint8]:
    """A crop resized to 64 pixels a side, in a light with a direction and a tint, with noise."""
    whole = texture[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    resized = _shrunk(_shrunk(whole, 0), 1)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, _LIGHT) * (rows * np.cos(angle) + columns * np.sin(angle))
    light = (random.uniform(1 - _LIGHT, 1 + _LIGHT) + slope)[..., None]
    tint = 1 + random.normal(0, _LIGHT / 4, 3)
    lit = (resized * light + random.normal(0, 4, resized.shape)) * tint
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    return pixels


def _shrunk(pixels: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Resized to 64 along an axis: each pixel is the mean of what it covers.

    Differences of running sums rather than a product of matrices, which a busy machine's threads
    slow down and round differently.
    """
    moved = np.moveaxis(pixels.astype(np.float64), axis, 0)
    sums = np.concatenate([np.zeros_like(moved[:1]), np.cumsum(moved, axis=0)])
    edges = np.arange(SIDE + 1) * (len(moved) / SIDE)
    before = np.minimum(edges.astype(int), len(moved) - 1)
    share = (edges - before).reshape(-1, *(1 for _ in moved.shape[1:]))
    at_edges = sums[before] * (1 - share) + sums[before + 1] * share
    means = np.diff(at_edges, axis=0) * (SIDE / len(moved))
    return np.moveaxis(means, 0, axis)


def _standardised(field: npt.NDArray[Any]) -> Field:
    """Mean 0 and standard deviation 1."""
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _noise(random: Random, wide: float, high: float | None = None) -> Field:
    """Gaussian noise, blurred by a number of pixels."""
    from scipy import ndimage  # not at the top: every command imports this module

    raw = random.standard_normal((_FIELD, _FIELD))
    return _standardised(ndimage.gaussian_filter(raw, (high or wide, wide), mode="mirror"))


def _turned(field: npt.NDArray[Any], degrees: float) -> Field:
    from scipy import ndimage

    whole = np.asarray(field, np.float64)
    turned = ndimage.rotate(whole, degrees, reshape=False, order=1, mode="mirror")
    return np.asarray(turned, np.float32)


def _coordinates(random: Random) -> tuple[Field, Field]:
    """Rows and columns of the field, starting anywhere."""
    top, left = random.uniform(0, 1000, 2)
    rows, columns = np.mgrid[:_FIELD, :_FIELD].astype(np.float32)
    return rows + np.float32(top), columns + np.float32(left)


# Each kind takes the measures of a class from `recipe`, and what differs from field to field
# from `random`.


def _kind(recipe: Random) -> Drawing:
    return _KINDS[recipe.integers(len(_KINDS))](recipe)


def _clouds(recipe: Random) -> Drawing:
    wide = recipe.uniform(0.7, 6)
    return lambda random: _noise(random, wide)


def _fibres(recipe: Random) -> Drawing:
    wide, high, angle = recipe.uniform(0.6, 2), recipe.uniform(4, 14), recipe.uniform(0, 180)
    return lambda random: _turned(_noise(random, wide, high), angle)


def _cells(recipe: Random) -> Drawing:
    """A Voronoi mosaic: its walls, or its cells in shades."""
    count, walls = int(recipe.integers(40, 700)), recipe.random() < 0.5

    def draw_field(random: Random) -> Field:
        from scipy import spatial

        points = random.uniform(0, _FIELD, (count, 2))
        pixels = np.moveaxis(np.mgrid[:_FIELD, :_FIELD], 0, -1).reshape(-1, 2)
        distance, index = spatial.cKDTree(points).query(pixels, k=2)
        shades = random.standard_normal(count)
        values = distance[:, 1] - distance[:, 0] if walls else shades[index[:, 0]]
        return np.asarray(values, np.float32).reshape(_FIELD, _FIELD)

    return draw_field


def _weave(recipe: Random) -> Drawing:
    period, angle = recipe.uniform(4, 22), recipe.uniform(0, 180)
    other = period * recipe.uniform(0.5, 2)

    def draw_field(random: Random) -> Field:
        rows, columns = _coordinates(random)
        waves = np.sin(2 * np.pi * columns / period) * np.sin(2 * np.pi * rows / other)
        return _turned(waves + 0.3 * _noise(random, 1), angle)

    return draw_field


def _stripes(recipe: Random) -> Drawing:
    period, bend, angle = recipe.uniform(4, 20), recipe.uniform(0, 6), recipe.uniform(0, 180)

    def draw_field(random: Random) -> Field:
        _, columns = _coordinates(random)
        bent = columns + bend * _noise(random, 8)
        return _turned(np.sin(2 * np.pi * bent / period) + 0.2 * _noise(random, 1), angle)

    return draw_field


def _bricks(recipe: Random) -> Drawing:
    height, width = int(recipe.integers(5, 16)), int(recipe.integers(9, 30))
    angle = recipe.uniform(0, 180)

    def draw_field(random: Random) -> Field:
        rows, columns = _coordinates(random)
        shifted = columns + (rows // height % 2) * width / 2
        joints = (rows % height < 1.5) | (shifted % width < 1.5)
        return _turned(joints, angle) + 0.2 * _noise(random, 2)

    return draw_field


def _spots(recipe: Random) -> Drawing:
    count, radius = int(recipe.integers(60, 600)), recipe.uniform(1, 6)

    def draw_field(random: Random) -> Field:
        field = np.zeros((_FIELD, _FIELD), np.float32)
        for _ in range(count):
            row, column = (int(place) for place in random.integers(0, _FIELD, 2))
            size = max(1, int(random.normal(radius, radius / 4)))
            top, left = max(0, row - size), max(0, column - size)
            window = field[top : row + size + 1, left : column + size + 1]
            rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
            disk = (rows + top - row) ** 2 + (columns + left - column) ** 2 <= size**2
            window[disk] = random.uniform(0.4, 1)
        return field + 0.1 * _noise(random, 1.2)

    return draw_field


_KINDS: tuple[Callable[[Random], Drawing], ...] = (
    _clouds, _fibres, _cells, _weave, _stripes, _bricks, _spots,
)  # fmt: skip
