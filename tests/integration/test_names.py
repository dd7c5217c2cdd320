"""Names that people's files have, on terminals that cannot show them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONVIT_SSL = str(Path(sys.executable).with_name("convit-ssl"))
CLASSES = (os.fsencode("größe 1"), os.fsencode("日本"), b"latin\xe9", b"cost $_{ in $")
TRAIN = """
config=convit_supervised data=folder run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=3
trunk.num_gpsa_layers=2 crops.global_size=32 optim.epochs=1 optim.batch_size=12 data.workers=1
run.threads=1 run.tensorboard=false run.name=run
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bilder ä ö")
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            place = os.path.join(os.fsencode(folder), os.fsencode(split), name)
            os.makedirs(place)
            for number in range(6):
                pixels = draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)
                with open(place + b"/caf\xe9 $%d$ ^.JPG" % number, "wb") as file:
                    Image.fromarray(pixels).save(file, "JPEG")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_from_training_to_pictures(encoding: str, images: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [CONVIT_SSL, *arguments], capture_output=True, cwd=tmp_path, timeout=400,
            env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        errors = done.stderr.decode("utf-8", "replace")
        assert done.returncode == 0, errors
        assert "Warning" not in errors
        return done.stdout.decode(encoding, "surrogateescape")

    root = tmp_path / "läufe"
    printed = run("train", *TRAIN.split(), f"data_dir={images}", f"run.root={root}")
    assert "data       folder: 24 images, 4 classes" in printed
    assert ("läufe/run/checkpoints" if encoding == "utf-8" else r"l\xe4ufe/run/ch") in printed
    weights = str(root / "run")
    cache = ("--cache", str(tmp_path / "cache"), "--workers", "0")
    run("knn", weights, "--data-dir", str(images), "--confusion", "confusion.png", *cache)
    run("report", weights)
    picture = next((images / "train").glob("*/*.JPG"))
    run("attention", str(picture), "--checkpoint", weights, "--out", "attention.png")
    for made in (tmp_path / "confusion.png", tmp_path / "attention.png"):
        assert Image.open(made).width > 200
    assert "größe 1" in (root / "run" / "report" / "report.html").read_text(encoding="utf-8")
