"""VISSL's task with our answers."""

import pytest


@pytest.mark.parametrize(("iteration", "start"), [(27, 0), (33, 3), (500, 14)])
def test_a_checkpoint_of_another_batch_starts_within_the_epoch(  # type: ignore[no-untyped-def]
    build_task, iteration: int, start: int
) -> None:
    task = build_task("convit_simclr", "optim.batch_size=64")  # 15 steps an epoch
    task.checkpoint = {"iteration": iteration, "train_phase_idx": 1}
    assert task._compute_start_iter_from_checkpoint("train") == start
