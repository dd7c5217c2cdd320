"""Runs on images of four channels, from the files to features, an export and a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from convit_ssl.adapters.weights import for_channels
from convit_ssl.cli.main import main
from tests.quick_run import Run
from tests.unit.data.make_channels import write_four_channels

SMALL = (
    *("data=folder", "crops.global_size=16", "optim.batch_size=16", "optim.epochs=2"),
    *("watch.every=2", "data.workers=0", "augmentation.rotate90=false"),
)


def accuracy(run: Run) -> float:
    result = json.loads((run.folder / "result.json").read_text())
    return float(result["figures"]["knn"])


@pytest.mark.slow
def test_the_fourth_channel_tells_the_classes(tmp_path: Path) -> None:
    data = write_four_channels(tmp_path / "data")
    found = {}
    for name, channels in (("all", "all"), ("rgb", "[1,2,3]")):
        options = (*SMALL, f"data_dir={data}", f"data.channels={channels}")
        run = Run(tmp_path / name, *options).start()
        assert run.process.wait(240) == 0, run.output.read_text()
        found[name] = accuracy(run)
    assert found["all"] > 0.75 > 0.65 > found["rgb"], found
    folder = str(tmp_path / "all" / "run")
    out = str(tmp_path / "exported")
    assert main(["knn", folder, "--data-dir", str(data), "--cache", str(tmp_path / "cache")]) == 0
    assert main(["export", folder, "--to", "safetensors", "timm", "--out", out]) == 0
    config = json.loads((tmp_path / "exported" / "timm" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"][0] == 4
    assert len(config["pretrained_cfg"]["mean"]) == 4
    shown = ["--images", "6", "--no-figures", "--show", "4,2,1"]
    assert main(["report", folder, *shown, "--out", str(tmp_path / "report")]) == 0


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_patch_embeddings_for_other_channels(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = adapt_input_conv(channels, weight)
    assert for_channels(weight, channels) == pytest.approx(expected, abs=1e-6)
