"""KoLeo against its formula, pair by pair."""

import math

import pytest
import torch
from torch import Tensor

from convit_ssl.methods import KoLeoLoss


def naive(features: Tensor) -> Tensor:
    """arXiv:1806.03198, equation 2, over unit vectors, up to a constant."""
    unit = [row / row.norm() for row in features]
    logs = [
        torch.stack([(one - other).norm() for j, other in enumerate(unit) if j != i]).min().log()
        for i, one in enumerate(unit)
    ]
    return -torch.stack(logs).mean()


@pytest.mark.parametrize(("images", "width"), [(2, 3), (5, 7), (23, 11)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_value_and_gradient(images: int, width: int, scale: float) -> None:
    torch.manual_seed(images * width)
    ours = (torch.randn(images, width, dtype=torch.float64) * scale).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    loss, expected = KoLeoLoss()(ours), naive(theirs)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_half_precision_is_computed_in_single() -> None:
    features = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = KoLeoLoss()(features.bfloat16())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(features.bfloat16().float()).item(), abs=1e-5)


def test_copies_of_an_image_neither_explode_nor_stop_the_others() -> None:
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    features[1] = features[0]
    features.requires_grad_()
    loss = KoLeoLoss()(features)
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(features.grad).all() and features.grad[2:].abs().sum() > 0


def test_one_image_alone_has_no_neighbour() -> None:
    features = torch.randn(1, 8, requires_grad=True)
    loss = KoLeoLoss()(features)
    loss.backward()
    assert loss.item() == 0.0 and features.grad.abs().sum() == 0


def test_spread_features_cost_less_than_crowded_ones() -> None:
    spread, crowded = torch.eye(8), torch.ones(8, 8) + 0.1 * torch.eye(8)
    assert KoLeoLoss()(spread).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)
    assert KoLeoLoss()(crowded) > KoLeoLoss()(spread) + 1
