"""`convit-ssl finetune`: flags become the options of an experiment."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig

from convit_ssl.cli.main import main
from convit_ssl.engines.launch import command
from convit_ssl.engines.options.compose import compose_experiment


def composed(monkeypatch: pytest.MonkeyPatch, *flags: str) -> DictConfig:
    seen: list[list[str]] = []
    monkeypatch.setattr(command, "run_experiment", lambda words, _: seen.append(words) or 0)
    assert main(["finetune", "runs/x", "--data", "digits", "--device", "cpu", *flags]) == 0
    return compose_experiment(seen[0]).tree


def test_finetune_is_that_of_its_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = composed(monkeypatch, "--img-size", "16", "--freeze-epochs", "2", "method.ema=0.99")
    assert (tree.experiment, tree.weights, tree.data.subset) == ("convit_finetune", "runs/x", None)
    assert (tree.crops.global_size, tree.method.freeze_trunk_epochs) == (16, 2)
    assert (tree.method.ema, tree.optim.layer_decay, tree.method.mixup) == (0.99, 0.65, 0.8)


@pytest.mark.parametrize("percent", [1, 10])
def test_few_labels_have_settings_of_their_own(
    percent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = composed(monkeypatch, "--low-shot", str(percent), "--seed", "3")
    assert tree.experiment == "convit_low_shot"
    assert tree.data.subset == f"fraction={percent / 100:g},seed=3"
    assert (tree.method.mixup, tree.optim.weight_decay, tree.optim.layer_decay) == (0, 0, 0.65)


def test_a_list_wins_over_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = composed(monkeypatch, "--low-shot", "1", "--subset", "list=my lists/1percent.txt")
    assert tree.data.subset == "list=my lists/1percent.txt"


def test_a_division_reaches_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--holdout", "0.2", "--group-by", "column:patient", "--split-seed", "3")
    tree = composed(monkeypatch, *flags, "--labels", "scans.csv:file,label,patient")
    assert (tree.data.holdout, tree.data.split_seed) == (0.2, 3)
    assert tree.data.group_by == "column:patient"
    assert tree.data.labels == "scans.csv:file,label,patient"
