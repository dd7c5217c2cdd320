"""Each experiment keeps the promises of its header."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from convit_ssl.engines.options.compose import compose_experiment, experiments_dir
from convit_ssl.methods import METHODS

EXPERIMENTS = {
    "convit_dino",
    "convit_simclr",
    "convit_moco_v3",
    "convit_swav",
    "convit_barlow_twins",
    "convit_supervised",
    "convit_finetune",
    "convit_low_shot",
    "convit_linear",
}
FILES = sorted((experiments_dir() / "config").glob("*.yaml"))


def header(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    return [line for line in lines[1:] if line.startswith("#")]


def command(path: Path, name: str) -> list[str]:
    (line,) = (line for line in header(path) if line.startswith(f"# {name}:"))
    words = line.partition(":")[2].split()
    assert words[:2] == ["python", "tools/run_distributed_engines.py"]
    return words[2:]


def test_the_experiments_are_these() -> None:
    assert {path.stem for path in FILES} >= EXPERIMENTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_names_paper_commands_and_figure(path: Path) -> None:
    text = "\n".join(header(path))
    assert re.search(r"Paper: .*arXiv:\d{4}\.\d{5}", text, re.DOTALL)
    assert "Time and figure" in text
    assert command(path, "Command")[0] == f"config={path.stem}"
    assert {"data=digits", "run=cpu", "trunk=convit_nano"} <= {*command(path, "Small")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["Command", "Small"])
def test_the_commands_of_the_header_compose(path: Path, name: str) -> None:
    composed = compose_experiment(command(path, name))
    tree = composed.tree
    assert composed.is_ours
    assert tree.experiment == path.stem
    assert tree.method.name in METHODS
    assert tree.data.name == ("imagenet" if name == "Command" else "digits")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_file_repeats_no_default(path: Path) -> None:
    own = OmegaConf.load(path)
    assert own["defaults"][-1] == "_self_"
    assert own["experiment"] == path.stem
    assert "config" not in own, "VISSL's own keys belong into the groups"
