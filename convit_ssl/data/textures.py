"""Procedural colour textures: a collection in colour that needs no download.

196 classes of 25 images of 64 x 64 pixels, 20 of them in train. A class is one large texture,
of one of seven kinds, in two colours; its images are crops of it at different places, sizes and
lights. The same seed gives the same pictures, so that figures on them can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

NUM_CLASSES, TRAIN, VAL = 196, 20, 5
SIDE = 64
CLASSES = tuple(f"texture_{number:03d}" for number in range(NUM_CLASSES))
_FIELD = 176  # side of the whole texture
_SEED = 5
_LIGHT = 0.12  # how much brightness and tint differ between images of a class

Field: TypeAlias = npt.NDArray[np.float32]
Random: TypeAlias = np.random.Generator


def load(_data_dir: str | os.PathLike[str] | None = None) -> dict[str, tuple[Any, Any]]:
    """Both splits: images (N, 64, 64, 3) uint8 and their classes' numbers (N,)."""
    random = np.random.default_rng(_SEED)
    palette = random.uniform(20, 235, (40, 2, 3))
    images = np.empty((NUM_CLASSES, TRAIN + VAL, SIDE, SIDE, 3), np.uint8)
    for number in range(NUM_CLASSES):
        texture = _texture(random, palette[random.integers(len(palette))])
        for index in range(TRAIN + VAL):
            images[number, index] = _photograph(texture, random)
    numbers = np.arange(NUM_CLASSES)
    return {
        "train": (images[:, :TRAIN].reshape(-1, SIDE, SIDE, 3), numbers.repeat(TRAIN)),
        "val": (images[:, TRAIN:].reshape(-1, SIDE, SIDE, 3), numbers.repeat(VAL)),
    }


def _texture(random: Random, colours: npt.NDArray[np.float64]) -> Field:
    """A field in two colours, (176, 176, 3) in 0..255 and a little beyond; half have a second."""
    colours = colours + random.normal(0, 14, (2, 3))
    share = 1 / (1 + np.exp(-random.uniform(0.7, 2.5) * _field(random)))[..., None]
    texture = colours[0] * (1 - share) + colours[1] * share
    if random.random() < 0.5:
        texture = texture * (1 + 0.12 * _field(random)[..., None])
    return np.asarray(texture, np.float32)


def _photograph(texture: Field, random: Random) -> npt.NDArray[np.uint8]:
    """A crop of about 64 pixels a side, in a light with a direction and a tint, with noise."""
    top, left = random.integers(0, _FIELD - SIDE - 16, 2)
    side = int(random.integers(SIDE - 8, SIDE + 16))
    whole = texture[top : top + side, left : left + side]
    crop = cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, _LIGHT) * (rows * np.cos(angle) + columns * np.sin(angle))
    light = (random.uniform(1 - _LIGHT, 1 + _LIGHT) + slope)[..., None]
    tint = 1 + random.normal(0, _LIGHT / 4, 3)
    lit = (crop * light + random.normal(0, 4, crop.shape)) * tint
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    return pixels


def _field(random: Random) -> Field:
    """One of the kinds, (176, 176), mean 0 and standard deviation 1."""
    return _standardised(_KINDS[random.integers(len(_KINDS))](random))


def _standardised(field: npt.NDArray[Any]) -> Field:
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _noise(random: Random, wide: float, high: float | None = None) -> Field:
    """Gaussian noise, blurred by so many pixels."""
    raw = random.standard_normal((_FIELD, _FIELD)).astype(np.float32)
    return _standardised(cv2.GaussianBlur(raw, (0, 0), sigmaX=wide, sigmaY=high or wide))


def _turned(field: Any, random: Random) -> Field:
    centre = (_FIELD / 2, _FIELD / 2)
    matrix = cv2.getRotationMatrix2D(centre, random.uniform(0, 180), 1)
    flat = np.asarray(field, np.float32)
    turned = cv2.warpAffine(flat, matrix, (_FIELD, _FIELD), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned, np.float32)


def _coordinates() -> tuple[Field, Field]:
    rows, columns = np.mgrid[:_FIELD, :_FIELD].astype(np.float32)
    return rows, columns


def _clouds(random: Random) -> Field:
    return _noise(random, random.uniform(0.7, 6))


def _fibres(random: Random) -> Field:
    return _turned(_noise(random, random.uniform(0.6, 2), random.uniform(4, 14)), random)


def _cells(random: Random) -> Field:
    """A Voronoi mosaic: its walls, or its cells in shades."""
    from sklearn.neighbors import KDTree

    count = int(random.integers(40, 700))
    points = random.uniform(0, _FIELD, (count, 2))
    pixels = np.stack(_coordinates(), axis=-1).reshape(-1, 2)
    distance, index = KDTree(points).query(pixels, k=2)
    shades = random.standard_normal(count)
    walls = random.random() < 0.5
    values = distance[:, 1] - distance[:, 0] if walls else shades[index[:, 0]]
    return np.asarray(values, np.float32).reshape(_FIELD, _FIELD)


def _weave(random: Random) -> Field:
    rows, columns = _coordinates()
    period = random.uniform(4, 22)
    other = period * random.uniform(0.5, 2)
    waves = np.sin(2 * np.pi * columns / period) * np.sin(2 * np.pi * rows / other)
    return _turned(waves + 0.3 * _noise(random, 1), random)


def _stripes(random: Random) -> Field:
    _, columns = _coordinates()
    period = random.uniform(4, 20)
    bent = columns + random.uniform(0, 6) * _noise(random, 8)
    return _turned(np.sin(2 * np.pi * bent / period) + 0.2 * _noise(random, 1), random)


def _bricks(random: Random) -> Field:
    rows, columns = _coordinates()
    height, width = int(random.integers(5, 16)), int(random.integers(9, 30))
    shifted = columns + (rows // height % 2) * width / 2
    joints = (rows % height < 1.5) | (shifted % width < 1.5)
    return _turned(joints, random) + 0.2 * _noise(random, 2)


def _spots(random: Random) -> Field:
    field = np.zeros((_FIELD, _FIELD), np.float32)
    count, radius = int(random.integers(60, 600)), random.uniform(1, 6)
    for _ in range(count):
        column, row = (int(place) for place in random.integers(0, _FIELD, 2))
        size = max(1, int(random.normal(radius, radius / 4)))
        cv2.circle(field, (column, row), size, float(random.uniform(0.4, 1)), -1)
    return field + 0.1 * _noise(random, 1.2)


_KINDS: tuple[Callable[[Random], Field], ...] = (
    _clouds, _fibres, _cells, _weave, _stripes, _bricks, _spots,
)  # fmt: skip
