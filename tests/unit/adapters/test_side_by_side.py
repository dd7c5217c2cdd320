"""Shares of a batch in threads of their own are the same step: loss, gradients and every state."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit_ssl.adapters.side_by_side import Threads, add_gradients, why_no_shares
from convit_ssl.adapters.train_step import train_step
from convit_ssl.models import ConViT
from tests.golden.tiny import counted_batches, tiny_task
from tests.unit.adapters.test_accumulation import METHODS, assert_same, two_steps


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    made = Threads(4)
    yield made
    made.close()


def shared_out(threads: Threads, experiment: str, *more: str) -> Any:
    task = tiny_task(experiment, *more)
    assert why_no_shares(task, 4) == ""
    task.share_out(threads)
    return task


@pytest.mark.parametrize("experiment", sorted(set(METHODS) - {"convit_linear"}))
def test_shares_make_the_same_step(threads: Threads, experiment: str) -> None:
    """Of 6 images: 1 + 2 + 1 + 2."""
    more = ("optim=sgd", *METHODS[experiment])
    assert_same(
        two_steps(shared_out(threads, experiment, *more)), two_steps(tiny_task(experiment, *more))
    )


@pytest.mark.parametrize("experiment", ["convit_dino", "convit_ibot"])
def test_with_drop_path(threads: Threads, experiment: str) -> None:
    more = ("optim=sgd", "trunk.drop_path_rate=0.4")
    whole = two_steps(tiny_task(experiment, *more))
    assert_same(two_steps(shared_out(threads, experiment, *more)), whole)


def test_the_same_steps_again_are_equal_to_the_last_bit(threads: Threads) -> None:
    first, second = (two_steps(shared_out(threads, "convit_dino")) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_in_half_precision(threads: Threads) -> None:
    more = ("optim=sgd", "run.precision=bf16")
    expected = two_steps(tiny_task("convit_simclr", *more))
    found = two_steps(shared_out(threads, "convit_simclr", *more))
    assert list(found) == list(expected)
    for name in (name for name in expected if name.startswith("gradient 0")):
        if expected[name].norm() > 1e-2:
            assert (found[name] - expected[name]).norm() < 0.1 * expected[name].norm(), name


def test_every_share_has_one_thread_and_the_caller_as_many_as_before(threads: Threads) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert threads.map(lambda _: torch.get_num_threads(), range(8)) == [1] * 8
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_twins_hold_no_weights_of_their_own(threads: Threads) -> None:
    trunk = tiny_task("convit_simclr").base_model.trunk
    own = {id(tensor) for tensor in (*trunk.parameters(), *trunk.buffers())}
    for twin in threads.twins(trunk, 2):
        assert {id(tensor) for tensor in (*twin.parameters(), *twin.buffers())} == own
    trunk.eval()
    assert not any(module.training for module in threads.twins(trunk, 2)[1].modules())


def test_what_a_share_raises_ends_the_step(threads: Threads) -> None:
    task = shared_out(threads, "convit_simclr")
    task.data_iterator = counted_batches(task)

    def fail(*_: object) -> None:
        raise MemoryError("of a share")

    task.base_model.trunk.norm.register_forward_hook(fail)  # before the twins are made
    with pytest.raises(MemoryError, match="of a share"):
        train_step(task)


def test_gradients_are_added_in_order_and_what_is_unused_has_none() -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    weights[1].grad = torch.ones(1)
    shares: list[tuple[Tensor | None, ...]] = [
        (torch.tensor([2.0]), torch.tensor([3.0]), None),
        (torch.tensor([4.0]), None, None),
    ]
    add_gradients(weights, shares)
    assert [None if w.grad is None else float(w.grad) for w in weights] == [6.0, 4.0, None]


@pytest.mark.parametrize(
    ("experiment", "more", "why"),
    [
        ("convit_simclr", "optim.accumulate=2", "optim.accumulate"),
        ("convit_simclr", "trunk.drop_rate=0.1", "dropout"),
        ("convit_simclr", "run.grad_checkpointing=true", "run.grad_checkpointing"),
    ],
)
def test_what_is_not_shared_out(experiment: str, more: str, why: str) -> None:
    assert why_no_shares(tiny_task(experiment, more), 4) == why


def test_a_frozen_trunk_and_other_trunks_are_not_shared_out() -> None:
    task = tiny_task("convit_simclr")
    assert isinstance(task.base_model.trunk, ConViT)
    assert why_no_shares(task, 10**6) == "their gradients"
    task.base_model.trunk.requires_grad_(False)
    assert why_no_shares(task, 4) == "a frozen trunk"
    task.base_model = SimpleNamespace(trunk=nn.Linear(1, 1))
    assert why_no_shares(task, 4) == "the trunk is not a ConViT"
