"""docs/examples/own_method.py, used as somebody outside would: from a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_method.py"
TRAIN = """
train plugins=own_method config=convit_ssl method=uniform data=digits run=cpu trunk=convit_nano
trunk.embed_dim=32 trunk.depth=3 trunk.num_gpsa_layers=2 trunk.patch_size=4 crops.global_size=8
method.uniformity=2 optim.batch_size=100 optim.epochs=1 run.threads=1 run.precision=fp32
run.processes=2 data.workers=0 run.tensorboard=false watch.every=0 run.name=run
"""


def convit_ssl(folder: Path, state: Path, *words: str) -> str:
    """What a command says, run in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "convit_ssl.cli.main", *words],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(state), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_method_of_ones_own_is_trained_and_evaluated(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    shutil.copy(EXAMPLE, mine)
    convit_ssl(mine, tmp_path, *TRAIN.split())
    config = (mine / "runs" / "run" / "config.yaml").read_text()
    assert f"- {mine / 'own_method.py'}" in config
    assert "name: uniform" in config
    assert "uniformity: 2.0" in config
    assert "finished" in convit_ssl(mine, tmp_path, *TRAIN.split())
    said = convit_ssl(other, tmp_path, "knn", str(mine / "runs" / "run"), "--data", "digits")
    assert "%" in said


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
