"""Evaluators are called by name, and what they return is checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes import evaluators
from convit_ssl.evaluation.probes.evaluators import evaluate, register_evaluator

EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "own_evaluator.py"
SET = FeatureSet(
    np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), np.array([0, 0, 1, -1])
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators, "EVALUATORS", dict(evaluators.EVALUATORS))


def test_the_example_is_one_and_is_short() -> None:
    spec = importlib.util.spec_from_file_location("own_evaluator", EXAMPLE)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    # The third image's nearest one has no label.
    assert evaluate("purity", SET, SET) == {"purity": pytest.approx(2 / 3)}
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_rank_needs_no_labels() -> None:
    assert set(evaluate("rank", SET, SET)) == {"rankme", "feature_std"}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3, "returns int; it must return a dictionary"),
        ({"a": "b"}, "returns dict; it must return a dictionary"),
        ({"a": float("nan")}, "a is not a finite number"),
    ],
)
def test_what_is_no_figure_is_refused(returned: Any, message: str) -> None:
    @register_evaluator("mine")
    def mine(train: FeatureSet, val: FeatureSet) -> Mapping[str, float]:
        value: Mapping[str, float] = returned
        return value

    with pytest.raises(UserError, match=message):
        evaluate("mine", SET, SET)


def test_an_unknown_one_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"unknown evaluator 'rnk'; did you mean 'rank'"):
        evaluate("rnk", SET, SET)
