"""LeJEPA's loss against the paper's formulas, and what its statistic tells apart."""

import cmath
import math

import pytest
import torch
from torch import Tensor

from convit_ssl.methods import Crops
from convit_ssl.methods.lejepa import LeJEPA, LeJEPALoss, LeJEPAOptions, SIGReg


def epps_pulley(values: Tensor) -> Tensor:
    """The statistic of one direction by its definition, over -3..3 in 33 knots."""
    step = 3 / 16
    total = torch.zeros((), dtype=values.dtype)
    for knot in range(-16, 17):
        t = knot * step
        parts = torch.stack([torch.stack(((t * x).cos(), (t * x).sin())) for x in values])
        real, imaginary = parts.mean(0)
        normal = cmath.exp(-(t**2) / 2).real
        distance = (real - normal) ** 2 + imaginary**2
        weight = step / 2 if knot in (-16, 16) else step
        total = total + distance * math.exp(-(t**2) / 2) * weight
    return total * len(values)


def published(crops: list[Tensor], directions: int, step: int, weight: float) -> Tensor:
    """Algorithm 2 of arXiv:2511.08544, entry by entry, for two large crops."""
    images, dim = crops[0].shape
    drawn = torch.randn(dim, directions, generator=torch.Generator().manual_seed(step))
    drawn = drawn.to(crops[0])
    centre = (crops[0] + crops[1]) / 2
    distance = torch.stack([((crop - centre) ** 2).sum() for crop in crops]).sum()
    statistics = [
        epps_pulley(torch.stack([row @ (drawn[:, d] / drawn[:, d].norm()) for row in crop]))
        for crop in crops
        for d in range(directions)
    ]
    spread = torch.stack(statistics).mean()
    return (1 - weight) * distance / (images * dim * len(crops)) + weight * spread


@pytest.mark.parametrize(("count", "weight"), [(2, 0.05), (3, 0.5)])
def test_value_and_gradient(count: int, weight: float) -> None:
    crops = [(torch.randn(5, 3).double() * 0.7 + 0.4).requires_grad_() for _ in range(count)]
    loss, distance, spread = LeJEPALoss(count, 2, weight, directions=4)(torch.cat(crops), step=9)
    torch.testing.assert_close(loss, published(crops, 4, 9, weight))
    torch.testing.assert_close(loss, (1 - weight) * distance + weight * spread)
    wanted = torch.autograd.grad(published(crops, 4, 9, weight), crops)
    for gradient, right in zip(torch.autograd.grad(loss, crops), wanted, strict=True):
        torch.testing.assert_close(gradient, right)


def test_a_gaussian_costs_least() -> None:
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(1, 500, 6, generator=generator)
    others = {
        "one point": torch.zeros_like(gaussian),
        "wide": 3 * gaussian,
        "shifted": gaussian + 1,
        "flat": gaussian * torch.tensor([1.0, 1, 1, 0, 0, 0]),
    }
    sigreg = SIGReg(64)
    least = float(sigreg(gaussian))
    assert all(float(sigreg(other)) > 5 * least for other in others.values())


def test_directions_change_with_the_step_alone() -> None:
    views = torch.randn(2, 8, 4)
    sigreg = SIGReg(3)
    assert torch.equal(sigreg(views, 5), sigreg(views, 5))
    assert not torch.equal(sigreg(views, 5), sigreg(views, 6))


def test_half_precision_is_computed_in_full() -> None:
    rows, loss = torch.randn(8, 4).bfloat16(), LeJEPALoss(2, directions=5)
    assert torch.equal(loss(rows)[0], loss(rows.float())[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(rows)[0], loss(rows.float())[0])


def test_all_crops_are_changed_alike() -> None:
    views = LeJEPA.views(LeJEPAOptions(), Crops(32, (0.3, 1.0), 16, 6, (0.05, 0.3))).crops
    assert [(view.size, view.count, view.scale) for view in views] == [
        (32, 1, (0.3, 1.0)), (32, 1, (0.3, 1.0)), (16, 6, (0.05, 0.3))
    ]  # fmt: skip
    assert {(view.blur_prob, view.solarize_prob, view.jitter_prob) for view in views} == {
        (0.5, 0.2, 0.8)
    }
