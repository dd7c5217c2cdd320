"""A few coloured images in class folders, and a ConViT small enough for a unit test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.data import ImageFiles, evaluation_transform, open_dataset
from convit_ssl.models import ConViT, ConViTConfig


def write_images(folder: Path, per_class: int, classes: str = "abc", seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = generator.integers(0, 120, (16, 16, 3))
            pixels[..., label % 3] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images" / "train", 7)
    write_images(tmp_path / "images" / "val", 4, seed=1)
    return tmp_path / "images"


@pytest.fixture
def images(folder: Path) -> ImageFiles:
    return open_dataset("folder", folder, "train", evaluation_transform(16))


@pytest.fixture
def model() -> ConViT:
    torch.manual_seed(1)
    config = ConViTConfig(
        img_size=16, patch_size=4, embed_dim=12, depth=4, num_heads=4, num_gpsa_layers=2,
        num_classes=0,
    )  # fmt: skip
    return ConViT(config).eval()
