"""What a method keeps in a checkpoint is all that it needs: the steps after it are the same."""

import copy
import itertools
from typing import Any

import pytest
import torch

from tests.golden.tiny import counted_batches, tiny_task


def steps(task: Any, first: int, count: int) -> list[float]:
    from convit_ssl.adapters.train_step import train_step

    torch.manual_seed(first)
    task.data_iterator = itertools.islice(counted_batches(task), first, None)
    losses = []
    for task.iteration in range(first, first + count):
        train_step(task)
        losses.append(float(task.last_batch.loss))
    return losses


@pytest.mark.parametrize(
    "experiment", ["convit_diet", "convit_distill", "convit_ibot", "convit_lejepa"]
)
def test_steps_after_a_checkpoint_are_the_same(experiment: str) -> None:
    whole, resumed = tiny_task(experiment), tiny_task(experiment)
    steps(whole, 0, 2)
    for part in ("base_model", "base_loss"):
        getattr(resumed, part).load_state_dict(getattr(whole, part).state_dict())
    state = copy.deepcopy(whole.optimizer.optimizer.state_dict())
    resumed.optimizer.optimizer.load_state_dict(state)
    assert steps(resumed, 2, 3) == steps(whole, 2, 3)
