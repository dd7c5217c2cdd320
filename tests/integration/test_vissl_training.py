"""VISSL's own CPU configuration trains, is started again, and keeps its secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# VISSL's command line on one of its own configurations, with images of 32 pixels for speed.
TRAIN = """
import sys
import convit_ssl.compat
convit_ssl.compat.install()

if __name__ == "__main__":
    from vissl.hooks import default_hook_generator
    from vissl.utils.distributed_launcher import launch_distributed
    from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict

    _, config = convert_to_attrdict(compose_hydra_configuration(sys.argv[1:]))
    for transform in config.DATA.TRAIN.TRANSFORMS:
        if transform["name"] == "RandomResizedCrop":
            transform["size"] = 32
    launch_distributed(config, 0, "train", default_hook_generator)
"""
SECRET = "open-sesame-42"
CONFIG = "config=test/cpu_test/test_cpu_resnet_simclr"  # LARC, SimCLR, synthetic images

VIT = "config.MODEL.TRUNK.VISION_TRANSFORMERS"
SMALL = (
    "config.MODEL.TRUNK.NAME=vision_transformer",
    f"{VIT}.IMAGE_SIZE=32",
    f"{VIT}.HIDDEN_DIM=32",
    f"{VIT}.NUM_LAYERS=2",
    f"{VIT}.NUM_HEADS=2",
    f"{VIT}.MLP_DIM=64",
    "config.MODEL.HEAD.PARAMS=[[mlp,{dims:[32,128]}]]",
)


def train(folder: Path, *overrides: str) -> str:
    """Train in a relative CHECKPOINT.DIR below ``folder``; what was printed."""
    script = folder / "train.py"
    script.write_text(TRAIN)
    arguments = [sys.executable, "-W", "ignore", "train.py", CONFIG, "config.CHECKPOINT.DIR=runs/a"]
    result = subprocess.run(
        [*arguments, *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MY_PASSWORD": SECRET, "RUN_TOKEN": SECRET},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_train_then_start_again(tmp_path: Path) -> None:
    first = train(tmp_path)

    run = tmp_path / "runs" / "a"
    checkpoint = torch.load(run / "checkpoint.torch", weights_only=True)
    assert checkpoint["iteration"] == 2
    assert os.readlink(run / "checkpoint.torch") == "model_final_checkpoint_phase0.torch"
    assert first.count("loss: ") >= 2
    assert SECRET not in (run / "log.txt").read_text()
    assert not list(run.glob(".*"))

    # There is only a final checkpoint, and it is to be overwritten.
    again = train(tmp_path, "config.CHECKPOINT.AUTO_RESUME=true", *SMALL)
    assert "Starting training" in again
    assert torch.load(run / "checkpoint.torch", weights_only=True)["iteration"] == 2
