"""The layout of DDP's buckets, which decides in which order gradients of processes are added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convit_ssl.adapters.gradients import settle_buckets


class Backwards(nn.Module):
    """Gradients come in the order of registration, not in the reverse as DDP expects."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)).square().mean()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layouts(settled: bool) -> list[list[int]]:
    """Places of the parameters in the buckets of three steps."""
    model = DistributedDataParallel(Backwards())
    numbers = {id(parameter): number for number, parameter in enumerate(model.parameters())}
    found: list[list[int]] = []

    def note(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        found[-1].extend(numbers[id(parameter)] for parameter in bucket.parameters())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    note.__annotations__ = {}
    model.register_comm_hook(None, note)
    if settled:
        found.append([])
        settle_buckets(model)
        assert all(parameter.grad is None for parameter in model.parameters())
        found.clear()
    for _ in range(3):
        found.append([])
        model(torch.ones(2, 4)).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    return found


def test_every_step_adds_gradients_in_the_same_order(group: None) -> None:
    first, second, third = layouts(settled=True)
    assert first == second == third


def test_ddp_with_a_gpu_wants_an_argument(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the first of what it moved to the device, and there is none without one."""
    model, given = DistributedDataParallel(Backwards()), []
    plain = DistributedDataParallel._pre_forward

    def noted(self: Any, *inputs: Any, **more: Any) -> Any:
        given.append(len(inputs))
        return plain(self, *inputs, **more)

    monkeypatch.setattr(DistributedDataParallel, "_pre_forward", noted)
    settle_buckets(model)
    assert given == [1]


def test_which_ddp_alone_does_not(group: None) -> None:
    first, second, _ = layouts(settled=False)
    assert first != second
