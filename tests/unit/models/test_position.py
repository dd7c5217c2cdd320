"""The positional half: its factors, its custom backward pass, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convit_ssl.models.position import (
    AddSeparableAttention,
    PositionFactors,
    add_separable_attention,
    grid_positions,
    kronecker_product,
    padded_attention,
    position_factors,
    position_query_key,
    separable_attention,
)


def mixed(content: Tensor, gate: Tensor, *others: Tensor) -> Tensor:
    """The gate also stands for its own rounded values."""
    return AddSeparableAttention.apply(content, gate, gate, *others)


def mixed_without_gradients(content: Tensor, gate: Tensor, *others: Tensor) -> Tensor:
    return add_separable_attention(content, gate, gate, *others)


def problem(batch: int, heads: int, grid: tuple[int, int], channels: int) -> list[Tensor]:
    """Content, its gate, values, row and column factors, laid out as in the network, in double."""
    shape = (batch, grid[0] * grid[1], heads, channels)
    content = torch.randn(shape).double().transpose(1, 2)
    value = torch.randn(*shape[:2], 3, *shape[2:]).double()[:, :, 2].transpose(1, 2)
    factors = (torch.randn(batch, heads, size, size).double().softmax(-1) for size in grid)
    gate = torch.rand(batch, heads, 1, 1).double()
    return [content, gate, value, *factors]


def dense(content: Tensor, gate: Tensor, value: Tensor, row: Tensor, column: Tensor) -> Tensor:
    maps = [kronecker_product(*pair) for pair in zip(row, column, strict=True)]
    return gate * content + torch.stack(maps) @ value


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 5),
)
def test_every_gradient(batch: int, heads: int, height: int, width: int, channels: int) -> None:
    inputs = [x.requires_grad_() for x in problem(batch, heads, (height, width), channels)]
    expected = dense(*inputs)
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    before = [x.detach().clone() for x in inputs]
    out = mixed(*inputs)
    gradients = torch.autograd.grad((out * weights).sum(), inputs)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, expected_gradients)
    with torch.no_grad():
        torch.testing.assert_close(mixed_without_gradients(*inputs), expected)
    # Memory is reused inside; never that of the inputs.
    assert all(torch.equal(x, kept) for x, kept in zip(inputs, before, strict=True))


@pytest.mark.parametrize("grid", [(14, 14), (14, 3), (2, 31), (10, 27), (9, 25), (16, 32)])
def test_gradients_where_products_are_widened(grid: tuple[int, int]) -> None:
    """In float32, rows of the next matrix are read along; nothing of them comes out."""
    inputs = [x.requires_grad_() for x in problem(2, 3, grid, 4)]
    expected = dense(*inputs)
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    single = [x.detach().float().requires_grad_() for x in inputs]
    out = mixed(*single)
    gradients = torch.autograd.grad((out * weights.float()).sum(), single)
    for gradient, exact in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [(3, 2), (1, 4), (4, 1), (1, 1)])
def test_gradients_of_gradients(grid: tuple[int, int]) -> None:
    inputs = [x.requires_grad_() for x in problem(1, 2, grid, 2)]
    assert torch.autograd.gradcheck(mixed, inputs)
    assert torch.autograd.gradgradcheck(mixed, inputs)


@pytest.mark.parametrize("contiguous", [True, False])
def test_any_layout_of_values_and_gradients(contiguous: bool) -> None:
    content, gate, value, row, column = problem(2, 3, (4, 5), 6)
    if contiguous:
        content, value = content.contiguous(), value.contiguous()
    value.requires_grad_()
    kept = value.detach().clone()
    out = mixed(content, gate, value, row, column)
    gradient = torch.randn(2, 3, 20, 6).double()
    gradient = gradient if contiguous else gradient.mT.contiguous().mT
    out.backward(gradient)
    expected = torch.autograd.grad(dense(content, gate, value, row, column), value, gradient)[0]
    torch.testing.assert_close(value.grad, expected)
    assert torch.equal(value, kept)


def test_per_sample_gradients() -> None:
    """torch.func passes through: no memory is reused under its wrappers."""
    content, gate, value, row, column = problem(3, 2, (2, 3), 4)

    def loss(value: Tensor) -> Tensor:
        args = (content[:1], gate[:1], value.unsqueeze(0), row[:1], column[:1])
        return mixed(*args).square().sum()

    batched = torch.func.vmap(torch.func.grad(loss))(value)
    for one, gradient in zip(value, batched, strict=True):
        torch.testing.assert_close(torch.func.grad(loss)(one), gradient)
    with torch.no_grad():
        mapped = torch.func.vmap(lambda v: separable_attention(PositionFactors(row, column), v))
        torch.testing.assert_close(
            mapped(value.unsqueeze(0))[0], separable_attention(PositionFactors(row, column), value)
        )


@pytest.mark.parametrize("mapped", [(0,), (1,), (2,), (3,), (4,), (2, 4), (3, 4), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_operand_may_be_mapped(mapped: tuple[int, ...], dtype: torch.dtype) -> None:
    """Memory that is not mapped takes no mapped product."""
    inputs = [x.to(dtype) for x in problem(1, 2, (10, 3), 4)]
    several = [torch.stack([x, x + 1]) if i in mapped else x for i, x in enumerate(inputs)]
    dims = tuple(0 if i in mapped else None for i in range(5))
    each = [[x[j] if i in mapped else x for i, x in enumerate(several)] for j in range(2)]

    def loss(*args: Tensor) -> Tensor:
        return mixed(*args).square().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))
    found = torch.func.vmap(gradient, in_dims=dims)(*several)
    for number, args in enumerate(each):
        torch.testing.assert_close([x[number] for x in found], list(gradient(*args)))
    with torch.no_grad():
        out = torch.func.vmap(mixed_without_gradients, in_dims=dims)(*several)
        torch.testing.assert_close(
            out, torch.stack([mixed_without_gradients(*args) for args in each])
        )


def test_batched_gradients_of_autograd_itself() -> None:
    """`is_grads_batched` and `jacobian` have wrappers of their own, older than torch.func's."""
    inputs = [x.requires_grad_() for x in problem(1, 2, (10, 3), 4)]
    out = mixed(*inputs)
    directions = torch.randn(3, *out.shape).double()
    found = torch.autograd.grad(out, inputs, directions, is_grads_batched=True, retain_graph=True)
    for number, direction in enumerate(directions):
        expected = torch.autograd.grad(out, inputs, direction, retain_graph=True)
        torch.testing.assert_close([x[number] for x in found], list(expected))
    value = inputs[2].detach()

    def of_value(value: Tensor) -> Tensor:
        return mixed(*inputs[:2], value, *inputs[3:])[..., :2, 0]

    torch.testing.assert_close(
        torch.autograd.functional.jacobian(of_value, value, vectorize=True),
        torch.autograd.functional.jacobian(of_value, value),
    )


def test_backward_inside_autocast() -> None:
    """The dtypes are those of the forward pass, wherever backward is called."""
    inputs = [x.float().requires_grad_() for x in problem(2, 3, (14, 3), 4)]
    expected = torch.autograd.grad(mixed(*inputs).square().sum(), inputs)
    loss = mixed(*inputs).square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(loss, inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("grid", [(3, 3), (7, 19), (1, 16), (9, 2)])
def test_factors_are_the_softmax_of_the_logits(grid: tuple[int, int]) -> None:
    weight = torch.randn(2, 4, 3).double()
    row, column = position_factors(weight, grid)
    assert row.shape == (2, 4, grid[0], grid[0])
    assert column.shape == (2, 4, grid[1], grid[1])
    for layer in range(2):
        positions = grid_positions(grid).double()
        query, key = position_query_key(weight[layer], positions)
        logits = (query @ key.mT)[0]
        product = kronecker_product(row[layer], column[layer])
        torch.testing.assert_close(product, logits.softmax(-1))


def test_factors_are_computed_in_float32_whatever_the_autocast() -> None:
    weight = torch.randn(4, 3)
    expected = position_factors(weight, (32, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = position_factors(weight, (32, 32))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    half = position_factors(weight.bfloat16(), (32, 32))
    assert half.row.dtype == torch.float32


def test_padding_changes_nothing() -> None:
    query, key, value = (torch.randn(2, 3, 10, n).double() for n in (3, 3, 7))
    expected = (query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(padded_attention(query, key, value), expected)
