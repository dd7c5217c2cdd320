"""What VISSL's model hands to a head: MoCo v3 and Barlow Twins normalise view by view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from convit_ssl.methods import Progress

BuildTask = Callable[..., Any]
SMALL = ("optim.batch_size=16", "method.hidden_dim=24", "method.out_dim=12")


def unlike_views(task: Any) -> list[Tensor]:
    """A batch of two views, the second darker and flatter than the first."""
    views, _, _ = next(iter(task.dataloaders["train"]))
    first, second = task.on_device(views, torch.zeros(16))[0]
    return [first, 0.3 * second - 0.7]


@pytest.mark.parametrize("method", ["moco_v3", "barlow_twins"])
def test_the_model_normalises_view_by_view(build_task: BuildTask, method: str) -> None:
    task = build_task(f"convit_{method}", *SMALL)
    task.base_model.train()
    views = unlike_views(task)
    head = task.base_model.heads[0]
    with torch.no_grad():
        (packed,) = task.base_model(views)
        apart = [head(task.base_model.trunk(view)[0], views=1) for view in views]
    torch.testing.assert_close(packed, torch.cat(apart), atol=1e-5, rtol=1e-4)


def test_so_does_the_momentum_teacher(build_task: BuildTask) -> None:
    task = build_task("convit_moco_v3", *SMALL)
    loss = task.base_loss
    loss.train()
    views = unlike_views(task)
    loss.observe(views, Progress(0, 10))
    teacher = loss.teacher
    with torch.no_grad():
        apart = [teacher.heads[0].project(teacher.trunk(view)[0], views=1) for view in views]
    for keys, expected in zip(loss._keys, apart, strict=True):
        torch.testing.assert_close(keys, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(keys.mean(0), torch.zeros(12), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["simclr", "swav", "dino"])
def test_the_others_normalise_all_crops_together(build_task: BuildTask, method: str) -> None:
    """As published: their heads see the features of all crops in one call."""
    small = ("optim.batch_size=16", "method.hidden_dim=24", "trunk.drop_path_rate=0")
    task = build_task(f"convit_{method}", *small, "crops.local_count=0")
    task.base_model.train()
    views = unlike_views(task)
    with torch.no_grad():
        (packed,) = task.base_model(views)
        features = torch.cat([task.base_model.trunk(view)[0] for view in views])
        together = task.base_model.heads[0](features)
    torch.testing.assert_close(packed, together, atol=1e-5, rtol=1e-4)
