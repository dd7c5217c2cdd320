"""``bench builds --against lightly``: what lightly trains, and how its features are read."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from convit_ssl.bench import builds, peers
from convit_ssl.cli.main import main
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk

NETWORK = peers.Network(side=32, patch=8, width=64, depth=2, heads=2)
SETTING = builds.Setting("simclr", "digits", None, "convit_nano", ("data.subset=fraction=0.1",))
HAS_LIGHTLY = importlib.util.find_spec("lightly") is not None


def test_the_network_has_the_size_of_ours() -> None:
    found = peers.Network.beside(SETTING.words())
    assert (found.width, found.depth, found.heads) == (128, 6, 4)
    assert found.side % found.patch == 0


def test_the_peer_is_told_what_ours_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "version", lambda peer: f"{peer} 1.6.0")
    arm, name = builds.opponent(SETTING, "lightly", 7, tmp_path)
    line = arm.line(SETTING, 3, tmp_path / "run")
    options = dict(zip(line[3::2], line[4::2], strict=True))
    assert name == "lightly 1.6.0" and builds.shown(name) == name
    assert line[1:3] == ["-m", "convit_ssl.bench.peers"]
    assert options["--subset"] == "fraction=0.1" and options["--data"] == "digits"
    assert (options["--epochs"], options["--seed"]) == ("7", "3")
    assert options["--out"] == str(tmp_path / "run") and options["--optimiser"] == "sgd"
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere") in builds._environment(arm)["PYTHONPATH"]
    with pytest.raises(UserError, match="give --methods simclr"):
        builds.opponent(builds.Setting("dino", "digits", None, "n"), "lightly", 7, tmp_path)


@pytest.mark.skipif(HAS_LIGHTLY, reason="lightly is installed")
def test_without_lightly_one_message_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--against", "lightly", "--methods", "simclr", "--data", "digits"]
    assert main(["bench", "builds", *words]) == 2
    assert "pip install lightly" in capsys.readouterr().err


def test_what_is_written_is_read_as_timm_computes_it(tmp_path: Path) -> None:
    trunk = NETWORK.build().eval()
    peers.save(trunk, tmp_path)
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert cfg["mean"] == pytest.approx([0.485, 0.456, 0.406])  # as lightly normalises its views
    images = torch.randn(2, 3, 32, 32)
    ours = load_trunk(tmp_path / "pytorch_model.bin").eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), trunk(images), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not HAS_LIGHTLY, reason="needs lightly")
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_lightly_trains(optimiser: str) -> None:
    fields = {**vars(NETWORK), "data": "digits", "data_dir": None, "subset": "fraction=0.1"}
    args = argparse.Namespace(**fields, optimiser=optimiser, epochs=1, seed=0)
    before = NETWORK.build().state_dict()["blocks.0.attn.qkv.weight"]
    after = peers.train(args).state_dict()["blocks.0.attn.qkv.weight"]
    assert after.isfinite().all() and not torch.equal(before, after)
