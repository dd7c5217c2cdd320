"""Learning rate and weight decay of every step are those of DINO's ``cosine_scheduler``."""

from __future__ import annotations

import numpy as np
import pytest

from convit_ssl.adapters.schedulers import Position, WarmupCosine
from convit_ssl.adapters.train_step import train_step
from tests.golden.tiny import counted_batches, tiny_task
from tests.unit.methods.test_schedules import published


@pytest.mark.parametrize(
    ("epochs", "steps", "warmup"),
    [(100, 5, 10), (16, 1, 2), (16, 1, 1), (4, 4, 1), (1, 16, 0), (2, 1, 1), (1, 1, 0), (3, 7, 3)],
)
def test_every_step_of_long_and_short_runs(epochs: int, steps: int, warmup: int) -> None:
    schedule = WarmupCosine(5e-4, 1e-6, epochs, start_value=1e-5, warmup_epochs=warmup)
    expected = published(5e-4, 1e-6, epochs, steps, warmup, 1e-5)
    total = epochs * steps
    found = [schedule(Position(step, total, steps)) for step in range(total)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert max(found) == pytest.approx(5e-4), "the peak is reached"


def test_the_optimiser_has_them_at_every_step() -> None:
    more = ("optim.weight_decay=0.04", "optim.weight_decay_end=0.4", "optim.min_lr=1e-5")
    task = tiny_task("convit_dino", *more)
    epochs, steps = 4, task.steps_per_epoch
    base = task.options.derived.lr
    rates = published(base, 1e-5, epochs, steps, 1, 0.0)
    decays = published(0.04, 0.4, epochs, steps, 0, 0.0)
    assert task.max_iteration == epochs * steps
    task.data_iterator = counted_batches(task)
    for step in range(task.max_iteration):
        train_step(task)
        task.iteration += 1
        groups = task.optimizer.optimizer.param_groups
        assert [group["lr"] for group in groups] == pytest.approx([rates[step]] * len(groups))
        (decay,) = {group["weight_decay"] for group in groups} - {0.0}
        assert decay == pytest.approx(decays[step])
