"""Tests of val are as rare as their cost asks, and forecasts count them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from convit_ssl.engines.options import testing
from convit_ssl.engines.options.scaling import cpu_seconds
from convit_ssl.methods import SupervisedOptions
from convit_ssl.models.variants import create_config


@pytest.mark.parametrize(
    ("train", "val", "method", "epochs"),
    [
        (1_281_167, 50_000, "supervised", 1),
        (1000, 797, "supervised", 3),
        (40, 980, "supervised", 82),
        (1000, 797, "linear", 8),
    ],
)
def test_tests_take_a_tenth_of_the_time_of_training(
    train: int, val: int, method: str, epochs: int
) -> None:
    every = testing.test_interval(train, val, method)
    assert every == epochs
    assert val / every <= testing.SHARE * train * testing.passes(method)


def test_a_forecast_counts_the_tests_that_are_left() -> None:
    options = SimpleNamespace(
        optim=SimpleNamespace(epochs=10, batch_size=20),
        method=SupervisedOptions(name="supervised", test_every=4),
    )
    task = SimpleNamespace(
        options=options, iteration=5, steps_per_epoch=5, inputs=SimpleNamespace(datasets={})
    )
    assert testing.test_seconds(task, 2.0) == (0, 0.0)
    task.inputs.datasets = {"TEST": range(900)}
    tests, seconds = testing.test_seconds(task, 2.0)
    assert tests == 3, "after epochs 4, 8 and 10"
    assert seconds == pytest.approx(3 * 900 * 2.0 / 20 / 3)


def test_what_a_processor_allows_includes_the_tests() -> None:
    network, sizes = create_config("convit_nano"), {"global_crop_size": 64, "batch_size": 16}
    alone, _ = cpu_seconds(network, "simclr", 40, sizes, labels="scratch")
    tested, _ = cpu_seconds(network, "simclr", 40, sizes, labels="scratch", tested=980)
    assert tested > 5 * alone
