"""Composition: what wins, and what is said of words that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from convit_ssl.engines.options.compose import compose_experiment, experiments_dir
from convit_ssl.engines.options.words import ELSEWHERE, dotted_keys, hint, nearest
from convit_ssl.errors import UserError

KEYS = ["optim.lr", "optim.min_lr", "optim.epochs", "method.temperature", "run.name", "trunk"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("optim.lrr", "optim.lr"),
        ("optim.epoch", "optim.epochs"),
        ("optm.epochs", "optim.epochs"),
        ("temperature", "method.temperature"),
        ("epochs", "optim.epochs"),
        ("name", "run.name"),
        ("backbone", "trunk"),
        ("learning_rate", "optim.lr"),
        ("zzzzzzzz", None),
    ],
)
def test_nearest_key(word: str, found: str | None) -> None:
    assert nearest(word, KEYS) == found
    assert hint(word, KEYS) == (f"; did you mean {found!r}?" if found else "")


def test_names_of_other_projects_lead_to_options_that_exist() -> None:
    composed = compose_experiment(["config=convit_dino"])
    assert set(ELSEWHERE) <= {*dotted_keys(composed.tree), "data", "trunk"}


@given(st.sampled_from(KEYS))
def test_a_valid_key_is_its_own_nearest(key: str) -> None:
    assert nearest(key, KEYS) == key


def test_dotted_keys_resolve_nothing() -> None:
    tree = OmegaConf.create({"a": {"b": "${no.such.key}", "c": None}, "d": [{"e": 1}]})
    assert dotted_keys(tree) == ["a", "a.b", "a.c", "d"]


def test_groups_and_values_win_over_the_experiments_file() -> None:
    composed = compose_experiment(
        ["config=convit_dino", "data=digits", "trunk=convit_nano", "optim.lr=1e-3"]
    )
    tree = composed.tree
    assert (tree.data.name, tree.trunk.variant) == ("digits", "convit_nano")
    assert tree.optim.lr == 1e-3
    assert tree.optim.clip_grad == 3.0, "the experiment's own"
    assert tree.optim.momentum == 0.9, "the schema's"
    assert "optim.lr" in composed.explicit
    assert "optim.epochs" not in composed.explicit


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("data_dir=/images of mine/2024,05", "data_dir", "/images of mine/2024,05"),
        ("data.subset=fraction=0.1,seed=0", "data.subset", "fraction=0.1,seed=0"),
        ("optim.betas=[0.9,0.95]", "optim.betas", [0.9, 0.95]),
        ("optim.weight_decay_end=null", "optim.weight_decay_end", None),
        ("optim.warmup_epochs=3", "optim.warmup_epochs", 3.0),
        ("run.name=2024", "run.name", "2024"),
    ],
)
def test_values_are_taken_as_they_are_meant(argument: str, key: str, value: object) -> None:
    tree = compose_experiment(["config=convit_dino", argument]).tree
    assert OmegaConf.select(tree, key) == value


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("config.OPTIMIZER.num_epochs=3", ["filled from optim.epochs", "optim.epochs=..."]),
        ("config.OPTIMIZER.name=sgd", ["computed from the experiment's options"]),
        ("optim=null", ["unknown optim"]),
        ("crops=3", ["crops is a section", "crops.global_size"]),
        ("optim.epochs=3.5", ["optim.epochs=3.5"]),
        ("=3", ["key=value"]),
    ],
)
def test_values_that_cannot_be_set(argument: str, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        compose_experiment(["config=convit_dino", argument])
    for word in words:
        assert word in str(refused.value)


def test_vissls_own_keys_can_be_set() -> None:
    tree = compose_experiment(["config=convit_dino", "config.LOG_FREQUENCY=3"]).tree
    assert tree.config.LOG_FREQUENCY == 3


def test_experiments_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose_experiment(["config=convit_simclr"]).tree.experiment == "convit_simclr"
    assert experiments_dir().is_absolute()


def test_an_experiment_of_the_users_own_is_not_scaled_where_it_says_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs" / "config"
    folder.mkdir(parents=True)
    shipped = (experiments_dir() / "config" / "convit_dino.yaml").read_text()
    (folder / "mine.yaml").write_text(
        shipped.replace("experiment: convit_dino", "experiment: mine")
    )
    monkeypatch.chdir(tmp_path)
    composed = compose_experiment(["config=mine"])
    assert composed.tree.experiment == "mine"
    assert {"optim.epochs", "crops.global_size"} <= composed.explicit


def test_vissls_configurations_are_not_ours() -> None:
    composed = compose_experiment(["config=test/cpu_test/test_cpu_resnet_simclr.yaml"])
    assert not composed.is_ours
