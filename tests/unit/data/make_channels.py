"""Small collections of images with more than three channels, and of CT, written for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def four_channels(label: int, rng: np.random.Generator, side: int = 16) -> Array:
    """(side, side, 4) of uint16: noise in three channels, the class in the fourth alone."""
    image = rng.integers(500, 3500, (side, side, 4))
    rows = np.arange(side)[:, None] if label else np.arange(side)[None]
    stripes = np.where((rows + rng.integers(4)) % 4 < 2, 3200, 600)
    image[..., 3] = stripes + rng.integers(0, 300, (side, side))
    return image.astype(np.uint16)


def write_four_channels(root: Path, train: int = 24, val: int = 12) -> Path:
    """``train`` and ``val`` images of each of two classes, as TIFF."""
    import tifffile

    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(2):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                image = four_channels(label, rng)
                tifffile.imwrite(folder / f"{number}.tif", image, photometric="rgb")
    return root
