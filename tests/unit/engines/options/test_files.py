"""Experiment files of one's own: by path, and in a folder of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from convit_ssl.engines.options.compose import Composed, compose_experiment
from convit_ssl.errors import UserError

MINE = """
defaults:
  - convit_dino
  - override /data: folder
  - override /trunk: convit_nano
  - override /run: cpu
  - _self_
data_dir: /plates
optim:
  epochs: 7
augmentation:
  hue: 0
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path


def composed(*words: str) -> Composed:
    return compose_experiment(list(words))


@pytest.mark.parametrize("name", ["./mine.yaml", "mine.yaml", "{place}/mine.yaml"])
def test_a_file_is_named_by_its_path(name: str, place: Path) -> None:
    found = composed(f"config={name.format(place=place)}", "optim.batch_size=32")
    tree = found.tree
    assert tree.experiment == "mine"
    assert (tree.data.name, tree.data_dir) == ("folder", "/plates")
    assert (tree.trunk.variant, tree.method.name) == ("convit_nano", "dino")
    assert (tree.optim.epochs, tree.optim.batch_size, tree.augmentation.hue) == (7, 32, 0)
    assert {"optim.epochs", "augmentation.hue", "optim.batch_size"} <= found.explicit
    assert "optim.lr" not in found.explicit


def test_the_command_line_wins_over_the_file(place: Path) -> None:
    tree = composed("config=./mine.yaml", "data=digits", "optim.epochs=3").tree
    assert (tree.data.name, tree.optim.epochs) == ("digits", 3)


def test_a_file_may_build_on_one_beside_it(place: Path) -> None:
    (place / "longer.yaml").write_text("defaults: [mine, _self_]\noptim: {epochs: 70}\n")
    (place / "mine.yaml").write_text(f"# @package _global_\n{MINE}")
    tree = composed("config=./longer.yaml").tree
    assert (tree.experiment, tree.optim.epochs, tree.augmentation.hue) == ("longer", 70, 0)


def test_a_name_in_the_file_is_kept(place: Path) -> None:
    (place / "mine.yaml").write_text(MINE + "experiment: plates\n")
    assert composed("config=mine.yaml").tree.experiment == "plates"


def test_group_files_are_named_by_path_too(place: Path) -> None:
    (place / "wide.yaml").write_text("# @package trunk\nvariant: convit_nano\nembed_dim: 256\n")
    tree = composed("config=convit_dino", "data=digits", "trunk=./wide.yaml").tree
    assert (tree.trunk.variant, tree.trunk.embed_dim) == ("convit_nano", 256)


@pytest.mark.parametrize("flag", [["--config-dir", "own"], ["--config-dir=own"]])
@pytest.mark.parametrize("inside", ["own/config/plates.yaml", "own/plates.yaml"])
def test_a_folder_of_ones_own(flag: list[str], inside: str, place: Path) -> None:
    (place / inside).parent.mkdir(parents=True)
    (place / inside).write_text(f"# @package _global_\n{MINE}experiment: plates\n")
    (place / "own" / "data").mkdir(parents=True, exist_ok=True)
    (place / "own" / "data" / "wells.yaml").write_text("# @package data\nname: list\n")
    found = composed(*flag, "config=plates", "data=wells")
    assert (found.tree.experiment, found.tree.data.name) == ("plates", "list")
    assert "optim.epochs" in found.explicit


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["config=./nothing.yaml"], "there is no file nothing.yaml"),
        (["config=some/nothing.yaml"], "not found, neither here nor in VISSL's"),
        (["config=nothing.yaml"], "there is no file nothing.yaml"),
        (["config=./mine"], "did you mean mine.yaml"),
        (["config=./bare.yaml"], "does not name the experiment it is based on"),
        (["config=./list.yaml"], "contains no options"),
        (["config=./broken.yaml"], "broken.yaml"),
        (["config=./typo.yaml"], "optim.epochz.*optim.epochs"),
        (["config=./lost.yaml"], "unknown experiment 'convit_dyno'.*convit_dino"),
        (["config=./number.yaml"], r"number.yaml: its defaults list names the group 3\.0, which"),
        (["config=./power.yaml"], "power.yaml: its defaults list names the group '1e9', which"),
        (["config=./record.yaml"], "is the resolved configuration of a run"),
        (["--config-dir", "nowhere", "config=mine"], "there is no such folder"),
        (["--config-dir", ".", "config=none"], "unknown experiment 'none'"),
        (["--config-dir", "own", "config=convit_dino"], "rename yours"),
    ],
)
def test_what_cannot_be_used_gets_one_message(words: list[str], message: str, place: Path) -> None:
    files = {
        "bare": "optim: {epochs: 3}\n",
        "list": "- 1\n",
        "broken": "defaults: [convit_dino\noptim: {\n",
        "typo": "defaults: [convit_dino, _self_]\noptim: {epochz: 3}\n",
        "lost": "defaults: [convit_dyno, _self_]\n",
        "number": "# @package _global_\ndefaults:\n  - convit_dino\n  - 3.0: digits\n",
        "power": "# @package _global_\ndefaults:\n  - convit_dino\n  - 1e9: digits\n",
        "record": "derived: {}\nfacts: {}\n",
    }
    for name, text in files.items():
        (place / f"{name}.yaml").write_text(text)
    (place / "own" / "config").mkdir(parents=True)
    (place / "own" / "config" / "convit_dino.yaml").write_text(MINE)
    with pytest.raises(UserError, match=message) as caught:
        composed(*words)
    assert "Traceback" not in str(caught.value)
    assert "file_" not in str(caught.value)


def test_nothing_is_left_behind_and_paths_are_not_recorded_as_copies(place: Path) -> None:
    found = composed("config=./mine.yaml")
    assert found.arguments == ("config=./mine.yaml",)
    assert "convit_ssl-config-" not in OmegaConf.to_yaml(found.tree)


def test_the_command_takes_both(place: Path) -> None:
    words = ["train", "--config-dir", ".", "config=mine", "optim.epochs=zero"]
    done = subprocess.run(
        [sys.executable, "-m", "convit_ssl.cli.main", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "optim.epochs='zero'" in done.stderr
