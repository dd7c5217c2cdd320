"""The time that is left includes tests, evaluations and the verdict."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from convit_ssl.engines.callbacks import forecast
from convit_ssl.engines.callbacks.console import Speed
from convit_ssl.engines.callbacks.forecast import BesideSteps, Measured, beside_steps
from convit_ssl.methods import SupervisedOptions
from tests.unit.engines.callbacks.test_feature_checks import resized


class Images(list[int]):
    classes = ("a", "b")


def task(images: int, epochs: int, labels: bool = False, **watching: int | None) -> Any:
    method: Any = SimpleNamespace(name="simclr", test_every=None)
    if labels:
        method = SupervisedOptions(name="supervised", test_every=4)
    options = SimpleNamespace(
        derived=SimpleNamespace(test_model=labels),
        method=method,
        optim=SimpleNamespace(epochs=epochs, batch_size=20),
        run=SimpleNamespace(fsdp=False),
        watch=SimpleNamespace(**{"every": None, "knn_images": None, **watching}),
    )
    inputs = SimpleNamespace(train=Images(range(images)), datasets={})
    return SimpleNamespace(options=options, iteration=0, steps_per_epoch=5, inputs=inputs)


@pytest.mark.parametrize(
    ("images", "val", "epochs"), [(3920, 980, 77), (60_000, 10_000, 10), (128_000, 50_000, 100)]
)
@pytest.mark.parametrize("watching", [{}, {"every": 3}, {"every": 2, "knn_images": 1000}])
def test_evaluations_are_those_of_the_run(
    images: int, val: int, epochs: int, watching: dict[str, int]
) -> None:
    look = resized(images, val, epochs, **watching)
    due = [epoch for epoch in range(1, epochs + 1) if look.due(epoch)]
    count, sampled = forecast._evaluations(
        task(images, epochs, **watching).options, images, 0, True
    )
    assert count == len(due)
    if "knn_images" in watching:  # then all of val, which is not known yet
        assert sampled >= len(look._bank_rows)
    else:
        assert sampled >= len(look._bank_rows) + len(look._val_rows)
    left, _ = forecast._evaluations(
        task(images, epochs, **watching).options, images, epochs - 1, True
    )
    assert left == 1


def test_pretraining_counts_evaluations_and_the_verdict() -> None:
    found = beside_steps(task(1000, 10), 2.0)
    assert found.evaluations and found.verdict and not found.tests
    assert "evaluations of the features and the verdict" in found.describe()
    measured = beside_steps(task(1000, 10), 2.0, Measured(evaluation=100.0))
    assert measured.seconds - 100 * measured.evaluations == pytest.approx(
        (1000 + 1000) * 2 * 2.0 / 20 / 8  # of train and of the test, by two networks
    )
    assert not beside_steps(task(1000, 10, every=0), 2.0).seconds
    unlabelled = task(1000, 10)
    unlabelled.inputs.train.classes = ()
    assert not beside_steps(unlabelled, 2.0).verdict


def test_learning_from_labels_counts_tests_as_they_were_measured() -> None:
    labels = task(100, 10, labels=True)
    labels.inputs.datasets = {"TEST": range(900)}
    found = beside_steps(labels, 2.0)
    assert (found.tests, found.evaluations, found.verdict) == (3, 0, True)
    slower = beside_steps(labels, 2.0, Measured(test=1000.0))
    assert slower.seconds - found.seconds == pytest.approx(3 * (1000.0 - 900 * 2.0 / 20 / 3))
    assert BesideSteps(1, 0, True, 1.0).describe() == "with 1 test of val and the verdict"


def test_the_speed_leaves_out_what_no_step_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    speed = Speed(100, 10, 20)
    assert speed.images_per_second(10) == 0.0
    now[0] = 50.0
    speed.pause("test", 30.0)
    assert speed.step_seconds(20) == pytest.approx(2.0)
    assert speed.images_per_second(20) == pytest.approx(10.0)
    assert speed.usual("test") == 30.0 and speed.usual("evaluation") is None
