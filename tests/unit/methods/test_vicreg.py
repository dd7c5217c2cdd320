"""VICReg's loss against its equations, and what its head does."""

import pytest
import torch
from torch import Tensor, nn

from convit_ssl.methods import Run
from convit_ssl.methods.batch_norm import HeadBatchNorm
from convit_ssl.methods.vicreg import VICReg, VICRegLoss, VICRegOptions


def published(views: list[Tensor], weights: tuple[float, float, float]) -> Tensor:
    """Equations 1 to 6 of arXiv:2105.04906, entry by entry, with the release's halves."""
    images, dim = views[0].shape
    pairs = zip(views[0], views[1], strict=True)
    invariance = torch.stack([((a - b) ** 2).sum() for a, b in pairs]).sum() / (images * dim)
    variance = covariance = torch.zeros((), dtype=views[0].dtype)
    for view in views:
        mean = view.mean(0)
        for i in range(dim):
            deviation = (view[:, i].var() + 1e-4).sqrt()
            variance = variance + torch.clamp(1 - deviation, min=0) / dim / 2
            for j in range(dim):
                if i != j:
                    product = (view[:, i] - mean[i]) * (view[:, j] - mean[j])
                    covariance = covariance + (product.sum() / (images - 1)) ** 2 / dim
    terms = (invariance, variance, covariance)
    return torch.stack([w * t for w, t in zip(weights, terms, strict=True)]).sum()


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 3.0)])
@pytest.mark.parametrize(("batch", "dim", "width"), [(3, 2, 0.4), (13, 5, 1.1)])
def test_value_and_gradient(
    batch: int, dim: int, width: float, weights: tuple[float, float, float]
) -> None:
    views = [(torch.randn(batch, dim).double() * width + 1).requires_grad_() for _ in range(2)]
    loss, expected = VICRegLoss(*weights)(*views), published(views, weights)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, views)
    for gradient, right in zip(torch.autograd.grad(loss, views), wanted, strict=True):
        torch.testing.assert_close(gradient, right)


def test_half_precision_is_computed_in_full() -> None:
    views = [torch.randn(6, 4).bfloat16() for _ in range(2)]
    wide = VICRegLoss()(*(view.float() for view in views))
    assert torch.equal(VICRegLoss()(*views), wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(VICRegLoss()(*(view.float() for view in views)), wide)


def test_identical_features_cost_the_hinge_alone() -> None:
    same = torch.ones(4, 3)
    assert float(VICRegLoss()(same, same)) == pytest.approx(25 * (1 - 0.01))


def test_the_head_normalises_each_view_by_itself() -> None:
    head = VICReg.head(VICRegOptions(hidden_dim=6, out_dim=4), 5, Run())
    widths = [tuple(layer.weight.shape) for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert widths == [(6, 5), (6, 6), (4, 6)]
    assert sum(isinstance(layer, HeadBatchNorm) for layer in head.modules()) == 2
    first, second = torch.randn(8, 5), torch.randn(8, 5) * 0.2 + 3
    alone = VICReg.head(VICRegOptions(hidden_dim=6, out_dim=4), 5, Run(global_crops=1))
    alone.load_state_dict(head.state_dict())
    apart = torch.cat([alone(first), alone(second)])
    torch.testing.assert_close(head(torch.cat([first, second])), apart)
