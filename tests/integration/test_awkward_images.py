"""A collection of 600 awkward files: each is right, refused by name or listed; nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.loading.samples import UnreadableImageError
from tests import awkward_images

TRAIN = """
config=convit_dino data=folder run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=3
trunk.num_gpsa_layers=2 trunk.patch_size=4 crops.global_size=16 crops.local_count=0
method.hidden_dim=32 method.bottleneck_dim=16 method.out_dim=64 optim.batch_size=200
run.threads=1 run.precision=fp32 data.workers=0 run.tensorboard=false watch.every=0 run.name=run
optim.epochs=1 data.max_corrupt=0.2
"""


def command(*arguments: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "convit_ssl.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return made.stdout + made.stderr


def difference(pixels: np.ndarray, made: awkward_images.Written) -> float:
    assert made.seen is not None
    seen = made.seen if made.seen.ndim == 3 else np.repeat(made.seen[..., None], 3, axis=-1)
    assert pixels.shape == seen.shape
    return float(np.abs(pixels - seen * 255.0).mean())


def check_pixels(folder: Path, truth: dict[str, Any]) -> list[str]:
    """Every file of both splits as a data set reads it; returns what is wrong."""
    wrong = []
    reading = open_dataset("folder", folder).survey().reading
    for split in ("train", "val"):
        dataset = open_dataset("folder", folder, split, max_corrupt=1.0, reading=reading)
        for path in dataset.files:
            kind, made = truth[f"{split}/{path}"]
            try:
                pixels = np.asarray(dataset.reader.image(f"{dataset.root}/{path}"))
            except UnreadableImageError as error:
                if made.fate == awkward_images.RIGHT:
                    wrong.append(f"{kind}: {error}")
                elif made.fate == awkward_images.REFUSED and "TIFF of" not in str(error):
                    wrong.append(f"{kind} is refused without a name: {error}")
                continue
            if made.fate != awkward_images.RIGHT:
                wrong.append(f"{kind} is read")
            elif (off := difference(pixels, made)) > made.close:
                wrong.append(f"{kind} is {off:.1f} levels off")
    return sorted(set(wrong))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_600_awkward_files(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    folder = tmp_path / "images"
    truth = awkward_images.write(folder)
    assert len(truth) == 600
    assert check_pixels(folder, truth) == []

    output = command("train", *TRAIN.split(), f"data_dir={folder}", f"run.root={tmp_path}")
    assert "seems to mix bit depths" in output
    bad = {split: {name.partition("/")[2] for name, (_, made) in truth.items()
                   if made.seen is None and name.startswith(split)}
           for split in ("train", "val")}  # fmt: skip
    run = tmp_path / "run"
    lines = (run / "unreadable.jsonl").read_text().splitlines()
    listed = {Path(json.loads(line)["path"]).name for line in lines}
    assert listed <= {Path(name).name for name in bad["train"]} and listed

    command("features", str(run), "--data-dir", str(folder), "--out", str(tmp_path / "features"))
    for split in ("train", "val"):
        images = json.loads((tmp_path / "features" / split / "images.json").read_text())
        root = folder / split
        listed = {str(Path(entry["path"]).relative_to(root)) for entry in images["unreadable"]}
        assert listed == bad[split]
        features = np.load(tmp_path / "features" / split / "features.npy")
        rows = sum(name.startswith(split) for name in truth) - len(bad[split])
        assert len(features) == rows and np.isfinite(features).all()

    command("report", str(run))
    report = json.loads((run / "report" / "report.json").read_text())
    assert "cannot be read" in json.dumps(report)
