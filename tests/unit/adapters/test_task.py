"""VISSL's task with our answers."""

import copy

import pytest
from torch import nn

from convit_ssl import adapters
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan


@pytest.mark.parametrize(("iteration", "start"), [(27, 0), (33, 3), (500, 14)])
def test_a_checkpoint_of_another_batch_starts_within_the_epoch(  # type: ignore[no-untyped-def]
    build_task, iteration: int, start: int
) -> None:
    task = build_task("convit_simclr", "optim.batch_size=64")  # 15 steps an epoch
    task.checkpoint = {"iteration": iteration, "train_phase_idx": 1}
    assert task._compute_start_iter_from_checkpoint("train") == start


def test_heads_are_normalised_over_all_processes_by_what_can_be_copied() -> None:
    """VISSL's default makes a group for each machine, which no teacher could copy."""
    adapters.register()
    from vissl.config import AttrDict
    from vissl.models.model_helpers import convert_sync_bn

    words = ["config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano"]
    config = AttrDict(make_plan(compose_experiment(words)).config)
    head = convert_sync_bn(config, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert isinstance(head[1], nn.SyncBatchNorm)
    assert head[1].process_group is None
    assert copy.deepcopy(head)[1].process_group is None
