"""The folder one stands in does not change a run; files of one's own are found and respected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from convit_ssl.engines.options.compose import compose_experiment, experiments_dir

ARGUMENTS = ["config=convit_dino", "data=digits", "run=cpu", "optim.epochs=3"]
GIVEN = {"config", "data", "run", "optim.epochs"}


def test_another_checkout_in_the_current_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    expected = compose_experiment(ARGUMENTS)

    clone = tmp_path / "clone"
    shutil.copytree(experiments_dir(), clone / "configs")
    for name in ("config/convit_dino", "data/digits", "optim/adamw", "run/cpu", "vissl/base"):
        path = clone / "configs" / f"{name}.yaml"
        path.write_text(path.read_text() + "\nnonsense: true\n")
    monkeypatch.chdir(clone)
    found = compose_experiment(ARGUMENTS)

    assert OmegaConf.to_yaml(found.tree) == OmegaConf.to_yaml(expected.tree)
    assert found.explicit == expected.explicit == GIVEN


def test_an_unrelated_configs_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "config").mkdir(parents=True)
    (tmp_path / "configs" / "config" / "convit_dino.yaml").write_text("{{ not yaml")
    (tmp_path / "configs" / "defaults.yaml").write_text("experiment: other")
    monkeypatch.chdir(tmp_path)
    assert compose_experiment(ARGUMENTS).explicit == GIVEN


def test_a_group_file_of_ones_own_counts_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "optim").mkdir(parents=True)
    shipped = (experiments_dir() / "optim" / "adamw.yaml").read_text()
    (tmp_path / "configs" / "optim" / "gentle.yaml").write_text(shipped + "\nlr: 0.001\n")
    monkeypatch.chdir(tmp_path)
    composed = compose_experiment(["config=convit_dino", "data=digits", "optim=gentle"])
    assert {"optim", "optim.lr", "optim.name"} <= composed.explicit
    assert "optim.epochs" not in composed.explicit
