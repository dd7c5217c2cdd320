"""Attention by way of its map: the backward pass that makes the map again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convit_ssl.models import attention
from convit_ssl.models.attention import (
    AttentionByMap,
    Mixture,
    content_attention,
    content_map,
    explicit_attention,
)


def by_map(
    query: Tensor, key: Tensor, value: Tensor,
    gate: Tensor | None = None, position: Tensor | None = None, keep: bool = False,
) -> Tensor:  # fmt: skip
    """Gate and position also stand for their own rounded values."""
    return AttentionByMap.apply(query, key, value, keep, gate, gate, position, position)[0]


def problem(with_position: bool) -> list[Tensor | None]:
    """Query, key and value (B, H, N, d) as in the network, gate and position (H, N, N)."""
    qkv = torch.randn(2, 5, 3, 2, 4).double().permute(2, 0, 3, 1, 4)
    position = torch.rand(2, 5, 5).double().requires_grad_() if with_position else None
    gate = torch.rand(2, 2, 1, 1).double().requires_grad_() if with_position else None
    return [*(part.detach().requires_grad_() for part in qkv.unbind(0)), gate, position]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("with_position", [True, False])
def test_every_gradient_and_theirs(with_position: bool, keep: bool) -> None:
    inputs = problem(with_position)
    query, key, value, gate, position = inputs
    mixed = content_map(query, key)
    expected = (mixed if position is None else gate * mixed + position) @ value
    torch.testing.assert_close(by_map(*inputs, keep=keep), expected)
    assert torch.autograd.gradcheck(lambda *x: by_map(*x, keep=keep), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: by_map(*x, keep=keep), inputs, fast_mode=True)


def test_both_ways_of_training_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, gate, position = inputs = problem(True)
    weights = torch.randn(2, 2, 5, 4).double()
    gradients, saved = [], []
    for kept in (4, 5):  # five tokens: made again, and kept
        monkeypatch.setattr(attention, "KEPT_TOKENS", kept)
        mixture = Mixture(gate, gate, position, position)  # type: ignore[union-attr,arg-type]
        out = explicit_attention(query, key, value, mixture)  # type: ignore[arg-type]
        saved.append(sum(x is not None for x in out.grad_fn.saved_tensors))
        gradients.append(torch.autograd.grad((out * weights).sum(), inputs))
    assert saved == [5, 6]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("patches", [64, 256])
def test_the_class_token_crosses_no_threshold_alone(patches: int) -> None:
    """At 8 x 8 and 16 x 16 patches layers with it and without go one way: one graph fewer."""
    ways = []
    for tokens in (patches, patches + 1):
        query = torch.randn(1, 1, tokens, 8, dtype=torch.bfloat16, requires_grad=True)
        made = type(content_attention(query, query, query).grad_fn).__name__
        ways.append(made)
    assert ways[0] == ways[1]
    assert "ScaledDotProduct" not in ways[0]


def test_per_sample_gradients() -> None:
    query, key, value, gate, position = problem(True)

    def loss(query: Tensor) -> Tensor:
        args = (query.unsqueeze(0), key[:1], value[:1], gate[:1], position)
        return by_map(*args).square().sum()

    batched = torch.func.vmap(torch.func.grad(loss))(query)
    for one, gradient in zip(query, batched, strict=True):
        torch.testing.assert_close(torch.func.grad(loss)(one), gradient)


def test_batched_gradients_of_autograd_itself() -> None:
    inputs = problem(True)
    out = by_map(*inputs)
    directions = torch.randn(3, *out.shape).double()
    found = torch.autograd.grad(out, inputs, directions, is_grads_batched=True, retain_graph=True)
    for number, direction in enumerate(directions):
        expected = torch.autograd.grad(out, inputs, direction, retain_graph=True)
        torch.testing.assert_close([x[number] for x in found], list(expected))


def test_backward_inside_autocast() -> None:
    """The dtypes are those of the forward pass, wherever backward is called."""
    inputs = [x.detach().float().requires_grad_() for x in problem(True)]  # type: ignore[union-attr]
    expected = torch.autograd.grad(by_map(*inputs).square().sum(), inputs)
    loss = by_map(*inputs).square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(loss, inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
