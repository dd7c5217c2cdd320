"""SwAV's queue, through VISSL's task."""

import pytest
import torch

from convit_ssl.errors import UserError
from convit_ssl.methods import Progress

SMALL = (
    "trunk.embed_dim=32", "trunk.depth=3", "trunk.num_gpsa_layers=2", "trunk.patch_size=4",
    "crops.global_size=8", "crops.local_count=1", "crops.local_size=4", "method.hidden_dim=32",
    "method.out_dim=8", "method.prototypes=24", "method.queue_start_epoch=0.5",
)  # fmt: skip


def step(task, number: int, taken: bool = True) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """One step of six images, out of ten an epoch; the optimiser's own is left out."""
    torch.manual_seed(number)
    progress, loss = Progress(number, 10), task.base_loss
    output = task.base_model([torch.randn(6, 3, side, side) for side in (8, 8, 4)])[0]
    loss.observe(None, progress)
    value: torch.Tensor = loss(output, torch.zeros(6, dtype=torch.int64))
    value.backward()
    loss.on_gradients(task.base_model, progress)
    if taken:
        loss.on_update(task.base_model, progress)
    return value.detach()


def test_the_queue_is_used_from_its_epoch_on_once_it_is_full(build_task) -> None:  # type: ignore[no-untyped-def]
    with_queue = build_task("convit_swav", *SMALL, "method.queue_length=12")
    without = build_task("convit_swav", *SMALL, "method.queue_length=0")
    without.base_model.load_state_dict(with_queue.base_model.state_dict())
    for task in (with_queue, without):
        task.base_model.train()
        task.base_loss.train()
    assert without.base_loss.queue is None
    same = [torch.equal(step(with_queue, n), step(without, n)) for n in (0, 1, 4, 5, 6)]
    assert same == [True, True, True, False, False]
    assert without.base_model.heads[0].embeddings is None


def test_only_steps_that_are_taken_fill_the_queue(build_task) -> None:  # type: ignore[no-untyped-def]
    task = build_task("convit_swav", *SMALL, "method.queue_length=12")
    task.base_model.train()
    queue = task.base_loss.queue
    step(task, 0, taken=False)
    assert int(queue.seen) == 0
    assert not queue.embeddings.any()
    step(task, 1)
    assert int(queue.seen) == 6
    norms = queue.embeddings.norm(dim=-1)
    torch.testing.assert_close(norms[:, :6], torch.ones(2, 6), rtol=1e-2, atol=0)
    assert not norms[:, 6:].any()
    assert {"queue.embeddings", "queue.seen"} <= set(task.base_loss.state_dict())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("method.queue_length=-3", "method.queue_length=-3: give 0 or more"),
        ("method.temperature=0", "method.temperature=0.0: give more than 0"),
    ],
)
def test_values_out_of_range_are_named(build_task, option: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        build_task("convit_swav", *SMALL, option)
