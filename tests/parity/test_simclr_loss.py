"""NT-Xent against its equation, written out pair by pair."""

import pytest
import torch
from torch import Tensor

from convit_ssl.methods import NTXentLoss


def published_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 of arXiv:2002.05709, one anchor at a time."""
    views = torch.cat((first, second))
    count, batch = len(views), len(first)
    unit = views / views.norm(dim=1, keepdim=True)
    terms = []
    for i in range(count):
        partner = (i + batch) % count
        others = torch.stack(
            [(unit[i] @ unit[k] / temperature).exp() for k in range(count) if k != i]
        )
        terms.append(-((unit[i] @ unit[partner] / temperature).exp() / others.sum()).log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("batch", "dim"), [(1, 3), (2, 5), (7, 11)])
@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_gradient(batch: int, dim: int, temperature: float, dtype: torch.dtype) -> None:
    first = torch.randn(batch, dim).to(dtype).requires_grad_()
    second = torch.randn(batch, dim).to(dtype).requires_grad_()
    loss = NTXentLoss(temperature)(first, second)
    gradients = torch.autograd.grad(loss, (first, second))
    exact = [view.detach().double().requires_grad_() for view in (first, second)]
    expected = published_loss(exact[0], exact[1], temperature)
    expected_gradients = torch.autograd.grad(expected, exact)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=tolerance)
    rounding = 2e-2 if dtype == torch.bfloat16 else tolerance * 10
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), wanted, rtol=rounding, atol=rounding)


def test_small_temperature_does_not_overflow() -> None:
    """exp(1 / 0.005) is infinite in fp32; the log-sum-exp is not."""
    views = torch.randn(4, 8, requires_grad=True)
    loss = NTXentLoss(0.005)(views, views + 0.01)
    loss.backward()
    assert loss.isfinite()
    assert views.grad is not None
    assert views.grad.isfinite().all()


def test_gradcheck() -> None:
    views = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(NTXentLoss(0.3), views)


def test_one_optimizer_step() -> None:
    weights = []
    for ours in (True, False):
        torch.manual_seed(1)
        head = torch.nn.Linear(5, 7)
        optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
        first, second = head(torch.randn(6, 5)), head(torch.randn(6, 5))
        loss = NTXentLoss(0.2)(first, second) if ours else published_loss(first, second, 0.2)
        loss.backward()
        optimizer.step()
        weights.append(head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_autocast_computes_in_full_precision() -> None:
    first, second = torch.randn(4, 64), torch.randn(4, 64)
    expected = NTXentLoss(0.1)(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(NTXentLoss(0.1)(first, second), expected)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature=0"):
        NTXentLoss(0)
