"""Readers of optional formats are imported when a file needs them, and by nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from convit_ssl.data.readers import READERS

ROOT = Path(__file__).parents[4]
# What the extras install beyond the ordinary requirements.
OPTIONAL = {
    *(reader.package for reader in READERS.values()), "imagecodecs", "pylibjpeg",
} - {"numpy"}  # fmt: skip
WALK = """
import sys
from convit_ssl.cli.main import main
from convit_ssl.data import open_dataset
from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.reading.viewing import view_image
import convit_ssl.engines.train, convit_ssl.analysis.report
transform = build_augmentation(AugmentConfig.dino(16, 8, 1))
images = open_dataset("folder", sys.argv[1], transform=transform)
crops = [images[place] for place in range(len(images))]
ranges = ((0.0, 255.0),) * 3
native = Reading(depth="native", channels=("R", "G", "B"), channel_ranges=ranges)
for path in images.paths:
    view_image(path, scale_bar=True)
own = open_dataset("folder", sys.argv[1], reading=native)
assert [own[place][0].shape[-1] for place in (0, 1)] == [3, 3]
assert main(["check", sys.argv[1], "--out", sys.argv[2]]) in (0, 1)
print("found", len(images), sorted(set({names!r}) & set(k for k, v in sys.modules.items() if v)))
"""


def collection(root: Path) -> Path:
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 20, 3)).astype(np.uint8)
    for place, suffix in enumerate((".png", ".jpg", ".webp", ".bmp")):
        Image.fromarray(pixels[place]).save(root / f"{place}{suffix}")
    return root


def walk(tmp_path: Path) -> str:
    folder = collection(tmp_path / "images")
    code = WALK.format(names=sorted(OPTIONAL))
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = re.search(r"found (.*)", ended.stdout)
    assert found is not None
    return found[1]


def test_usual_images_import_no_optional_reader(tmp_path: Path) -> None:
    assert len(OPTIONAL) > 10
    assert walk(tmp_path) == "4 []"


def test_nothing_of_the_extras_is_an_ordinary_requirement() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ordinary = text.split("\ndependencies = [", 1)[1].split("\n]", 1)[0].lower()
    for package in OPTIONAL:
        assert package.replace("_", "-") not in ordinary and package not in ordinary
