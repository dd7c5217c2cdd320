"""docs/examples/timm_trunk.py, and a trunk of one's own, used as somebody outside would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "timm_trunk.py"
SMALL = [
    "optim.batch_size=20", "data.subset=per_class=2", "crops.local_count=1", "crops.local_size=16",
    "method.out_dim=64", "run.threads=1", "run.precision=fp32", "data.workers=0", "watch.every=0",
    "run.tensorboard=false",
]  # fmt: skip
MINE = """
from torch import nn
from convit_ssl.models.trunks import register_trunk

@register_trunk("tiny_cnn")
def tiny_cnn(in_chans):
    return nn.Sequential(nn.Conv2d(in_chans, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
"""


def python(folder: Path, *words: str, code: int = 0) -> str:
    """What a Python process says, run in a folder."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_dino_with_a_vision_transformer_of_timm(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    said = python(tmp_path, "timm_trunk.py", "--epochs", "1", "--set", *SMALL)
    assert "timm:vit_tiny_patch16_224: 5.5 M parameters, patch 16, 192 features" in said
    assert "timm loads it: (1, 192)" in said
    assert "kNN of timm:vit_tiny_patch16_224 dino" in said


@pytest.mark.slow
def test_a_trunk_of_ones_own_is_trained_resumed_and_evaluated(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    command = ["-m", "convit_ssl.cli.main"]
    words = ["config=convit_simclr", "plugins=mine.py", "trunk=tiny_cnn", "data=digits", "run=cpu"]
    train = [*command, "train", *words, *SMALL, "run.name=run"]
    train = [word for word in train if not word.startswith(("method.", "crops.local"))]
    python(tmp_path, *train, "optim.epochs=1")
    assert "finished" in python(tmp_path, *train, "optim.epochs=1")
    probe = [*command, "knn", "runs/run", "--data", "digits", "--subset", "per_class=2"]
    probe += ["--cache", "cache"]
    assert "tiny_cnn simclr" in python(tmp_path, *probe)
    (tmp_path / "mine.py").unlink()
    said = python(tmp_path, *probe, code=2)
    assert "unknown trunk 'tiny_cnn'" in said
    assert f"CONVIT_SSL_PLUGINS={tmp_path / 'mine.py'}" in said


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
