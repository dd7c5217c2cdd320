"""LARS steps as SimCLR's, MoCo v3's and Barlow Twins' own code does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from convit_ssl.adapters.lars import PublishedLars

BuildTask = Callable[..., Any]


def by_the_rule(
    weight: Tensor, gradients: list[Tensor], rate: float, decay: float, momentum: float
) -> Tensor:
    """Steps by the published rule, written out."""
    weight, velocity = weight.clone(), torch.zeros_like(weight)
    for gradient in gradients:
        step = gradient.clone()
        if weight.dim() > 1:
            step = gradient + decay * weight
            step = step * (0.001 * weight.norm() / step.norm())
        velocity = momentum * velocity + step
        weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 2, 2), (1, 6, 4), (7,)])
def test_steps_are_the_published_ones(shape: tuple[int, ...], decay: float) -> None:
    start = torch.randn(shape, dtype=torch.float64)
    gradients = [torch.randn(shape, dtype=torch.float64) * 1e-3 for _ in range(4)]
    weight = torch.nn.Parameter(start.clone())
    # The task gives vectors no decay.
    groups = [{"params": [weight], "lr": 2.0, "weight_decay": decay if len(shape) > 1 else 0.0}]
    optimiser = PublishedLars(groups, momentum=0.9)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
    expected = by_the_rule(start, gradients, 2.0, decay, 0.9)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=0)
    assert [len(group["params"]) for group in optimiser.param_groups] == [1]
    assert optimiser.param_groups[0]["weight_decay"] == groups[0]["weight_decay"]
    assert list(optimiser.state_dict()["state"][0]) == ["momentum_buffer"]


def test_a_run_without_weight_decay_adapts(build_task: BuildTask) -> None:
    small = ("trunk.patch_size=4", "crops.global_size=8", "method.hidden_dim=32")
    options = (*small, "method.out_dim=16", "optim=lars", "optim.weight_decay=0")
    task = build_task("convit_barlow_twins", *options, "method.scale_loss=0.024")
    assert task.base_loss.barlow_twins.scale == 0.024
    parameters = dict(task.base_model.named_parameters())
    for group in task.optimizer.optimizer.param_groups:
        group["lr"] = 1.0
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter) * 1e3
    task.optimizer.optimizer.step()
    for name, parameter in parameters.items():
        moved, length = (parameter.detach() - before[name]).norm(), before[name].norm()
        if parameter.dim() > 1:
            torch.testing.assert_close(moved, 0.001 * length, rtol=1e-3, atol=1e-7)
        else:
            torch.testing.assert_close(moved, parameter.grad.norm(), rtol=1e-3, atol=0)
