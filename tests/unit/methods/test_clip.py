"""Clipping against DINO's loop and PyTorch's own."""

import pytest
import torch
from torch import nn

from convit_ssl.methods import (
    DINOHead,
    SwAVHead,
    cancel_last_layer_gradients,
    clip_each,
    clip_global,
)

SHAPES = [(3, 5), (7,), (), (2, 3, 4)]


def parameters(scale: float = 1.0) -> list[nn.Parameter]:
    torch.manual_seed(3)
    made = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    for index, parameter in enumerate(made):
        parameter.grad = torch.randn(parameter.shape) * scale * 10.0 ** (index - 2)
    return [*made, nn.Parameter(torch.zeros(2))]  # the last one has no gradient


@pytest.mark.parametrize("max_norm", [0.3, 3.0, 1000.0])
def test_each_parameter_as_published(max_norm: float) -> None:
    ours, theirs = parameters(), parameters()
    norm = clip_each(ours, max_norm)
    squares = 0.0
    for parameter in theirs:
        if parameter.grad is not None:
            own = parameter.grad.norm(2)
            squares += own.item() ** 2
            coefficient = max_norm / (own + 1e-6)
            if coefficient < 1:
                parameter.grad.mul_(coefficient)
    assert norm.item() == pytest.approx(squares**0.5)
    compare(ours, theirs)


@pytest.mark.parametrize("max_norm", [0.3, 1000.0])
def test_all_together_as_pytorch(max_norm: float) -> None:
    ours, theirs = parameters(), parameters()
    norm = clip_global(ours, max_norm)
    expected = nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(norm, expected)
    compare(ours, theirs)


@pytest.mark.parametrize("clip", [clip_each, clip_global])
def test_gradients_in_float64_are_clipped_in_float64(clip) -> None:  # type: ignore[no-untyped-def]
    """Norms in float32 made DINO in float64 differ from the released code by 1e-8."""
    parameter = nn.Parameter(torch.zeros(7, dtype=torch.float64))
    parameter.grad = torch.linspace(1, 2, 7, dtype=torch.float64)
    expected = parameter.grad * 0.5 / (parameter.grad.norm() + 1e-6)
    clip([parameter], 0.5)
    torch.testing.assert_close(parameter.grad, expected, rtol=1e-15, atol=0)


def compare(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None and other.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("clip", [clip_each, clip_global])
def test_mixed_precision_nothing_and_nan(clip) -> None:  # type: ignore[no-untyped-def]
    mixed = [nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))]
    for parameter in mixed:
        parameter.grad = torch.full_like(parameter, 2.0)
    assert clip(mixed, 1.0).item() == pytest.approx(32**0.5, rel=1e-2)
    assert clip([nn.Parameter(torch.zeros(2))], 1.0).item() == 0
    mixed[0].grad = torch.full((4,), torch.nan)
    assert clip(mixed, 1.0).isnan()
    with pytest.raises(ValueError, match="max_norm=0"):
        clip(mixed, 0)


def test_last_layer_rests_while_frozen() -> None:
    head = DINOHead(3, 5, hidden_dim=7, bottleneck_dim=4, norm_last_layer=False)
    before = head.last_layer.weight_v.detach().clone()
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.5)
    for epoch in (0, 0.5, 1):
        optimizer.zero_grad()
        head(torch.randn(6, 3)).square().sum().backward()
        frozen = cancel_last_layer_gradients(head, epoch, freeze_epochs=1)
        optimizer.step()
        assert frozen is (epoch < 1)
        assert torch.equal(head.last_layer.weight_v, before) is frozen
    assert head.mlp[0].weight.grad is not None
    swav = SwAVHead(3, 5, 7, 4)
    swav(torch.randn(6, 3)).sum().backward()
    assert cancel_last_layer_gradients(nn.Sequential(swav), 0, 1, layer="prototypes")
    assert swav.prototypes.weight.grad is None
    with pytest.raises(ValueError, match="last_layer"):
        cancel_last_layer_gradients(nn.Linear(2, 2), 0, 1)
