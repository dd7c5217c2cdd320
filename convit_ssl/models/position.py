"""The positional half of GPSA: its two factors, and their product with the values.

The logit of key k for query q is ``a dx + b dy + c (dx^2 + dy^2) + bias`` with (dx, dy) = k - q
in patches (ConViT, arXiv:2103.10697, section 3): a term in dx plus a term in dy. Over a full
grid the softmax P of such a sum is the Kronecker product of a softmax along rows and one along
columns, and ``P @ V`` is two small contractions, O(N (height + width)) per channel, not O(N^2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.models import fused
from convit_ssl.models.autocast import at_least_single, without_autocast, without_common_part
from convit_ssl.models.sdpa import fused_attention
from convit_ssl.models.transforms import in_forward_mode, is_wrapped


class PositionFactors(NamedTuple):
    """The positional attention of each head as row and column softmaxes (rows sum to one)."""

    row: Float[Tensor, "*layers heads height height"]
    column: Float[Tensor, "*layers heads width width"]


def axis_logits(
    linear: Float[Tensor, "*heads"], square: Float[Tensor, "*heads"], size: int
) -> Float[Tensor, "*heads size size"]:
    """Logits linear * delta + square * delta^2 for each pair of positions along one axis.

    delta = key - query, in patches.
    """
    index = torch.arange(size, device=linear.device, dtype=linear.dtype)
    delta = index - index.unsqueeze(-1)
    return linear[..., None, None] * delta + square[..., None, None] * delta.square()


def position_factors(
    weight: Float[Tensor, "*layers heads 3"], grid: tuple[int, int]
) -> PositionFactors:
    """Row and column softmaxes whose Kronecker product is the positional attention.

    Computed in float32 at least: the logits grow with the square of the grid, beyond the
    resolution of half precision.

    Args:
        weight: (a, b, c) of each head, of any number of layers.
        grid: height and width in patches.
    """
    height, width = grid
    with without_autocast(weight.device):
        a, b, c = at_least_single(weight).unbind(-1)
        if height == width:
            both = torch.stack([b, a])
            row, column = axis_logits(both, c.expand_as(both), height).softmax(dim=-1).unbind(0)
            return PositionFactors(row, column)
        row, column = axis_logits(b, c, height), axis_logits(a, c, width)
        return PositionFactors(row.softmax(dim=-1), column.softmax(dim=-1))


def kronecker_product(
    row: Float[Tensor, "heads height height"], column: Float[Tensor, "heads width width"]
) -> Float[Tensor, "heads tokens tokens"]:
    """The dense positional attention that the factors stand for. Rows are queries."""
    dense = row[:, :, None, :, None] * column[:, None, :, None, :]  # (H, i, j, k, l)
    return dense.flatten(3, 4).flatten(1, 2)


def separable_attention(
    factors: PositionFactors, value: Float[Tensor, "batch heads tokens head_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """(P_row kron P_column) @ value, by one contraction per axis of the grid."""
    row, column = (factor.expand(len(value), -1, -1, -1) for factor in factors)
    return _contract(row, column, value).flatten(2, 3)


class AddSeparableAttention(torch.autograd.Function):
    """``content_gate * content + separable_attention((row, column), value)``, saving its inputs.

    Autograd would keep two rearranged copies of the values; the backward pass makes them again.
    The content costs no memory: fused attention keeps its result for its own backward pass.
    The factors come expanded, (B, H, size, size), so that no layer expands them for itself. They
    are in float32 for a kernel and for float16 on a CPU, else in the dtype of the values. The
    gate comes in float32 at least, which takes the gradient, and in the dtype of the values.

    Given query and key, the backward pass makes the content again in float32: the gradient of a
    gate is the difference of position and content, and rounding may be all that is left of it. On
    a GPU, and in bfloat16 beyond 20 x 20 patches, that would cost time: the content stays rounded.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        content: Tensor, content_gate: Tensor, rounded_gate: Tensor,
        value: Tensor, row: Tensor, column: Tensor,
        query: Tensor | None = None, key: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, H, N, d), (B, H, 1, 1) twice, (B, H, N, d), shapes of factors, (B, H, N, d) twice."""
        return add_separable_attention(content, content_gate, rounded_gate, value, row, column)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """Keep the inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Three contractions give the values' gradient, two more those of the factors."""
        with without_autocast(grad.device):  # the dtypes are those of the forward pass
            content, content_gate, rounded_gate, value, row, column, *others = ctx.saved_tensors
            if _goes_through_a_kernel(value, row, column, grad, content, content_gate):
                made = fused.separable_gradients(grad, content, content_gate, value, row, column)
                return *made[:2], None, *made[2:], None, None
            grad_content = grad * rounded_gate
            dtype = value.dtype
            value, common = without_common_part(value)
            query, key = others or (None, None)
            if query is not None and key is not None:
                grad, value = at_least_single(grad), at_least_single(value)
                content = fused_attention(at_least_single(query), at_least_single(key), value)
            elif common is not None:
                content = at_least_single(content) - common
            # In float32: products of small gradients in float16 would be nothing.
            paired = at_least_single(grad) * content
            grad_gate = paired.sum((-2, -1), keepdim=True, dtype=content_gate.dtype)
            grad_value, *of_factors = _contraction_gradients(grad, value, row, column)
            return grad_content, grad_gate, None, grad_value.to(dtype), *of_factors, None, None


def add_separable_attention(
    content: Float[Tensor, "batch heads tokens head_dim"],
    content_gate: Float[Tensor, "batch heads 1 1"],
    rounded_gate: Float[Tensor, "batch heads 1 1"],
    value: Float[Tensor, "batch heads tokens head_dim"],
    row: Float[Tensor, "batch heads height height"],
    column: Float[Tensor, "batch heads width width"],
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """The same, for where no gradient is asked for."""
    if _goes_through_a_kernel(value, row, column, content, content_gate):
        return fused.add_separable(content, content_gate, value, row, column)
    position = _contract(row, column, value)
    # Laid out as the content is, (B, N, H, d) after a fused kernel, merging heads is free.
    if not _may_overwrite(content, rounded_gate, position):
        return (content * rounded_gate).add(position.flatten(2, 3))
    out = torch.empty_like(content)
    shape = position.shape
    torch.addcmul(position, content.view(shape), rounded_gate.unsqueeze(-1), out=out.view(shape))
    return out


def _goes_through_a_kernel(value: Tensor, row: Tensor, column: Tensor, *others: Tensor) -> bool:
    """Whether one of `fused` may be used: they know nothing of autograd and of wrapped tensors."""
    grid = (row.shape[-2], column.shape[-2])
    if len(value) == 0 or not fused.applies(value.device, value.dtype, grid):
        return False
    if torch.compiler.is_compiling():  # inside `AddSeparableAttention`, as here without gradients
        return True
    tensors = (value, row, column, *others)
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return not (differentiated or in_forward_mode() or any(map(is_wrapped, tensors)))


def _contraction_gradients(
    grad: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_contract` for values, row and column factors, from that of its result."""
    height, width = row.shape[-1], column.shape[-1]
    row, column = row.to(value.dtype), column.to(value.dtype)
    values = _rows(value, height, _spare_rows(value, height))
    first = row @ values
    mixed = _transposed(_split(first, width), None, _spare_rows(first, width))
    grad_out = _columns(grad, width, into=first)
    grad_column = _pairings(grad_out, mixed)
    grad_mixed = _multiply(column.mT, grad_out, into=mixed)
    grad_mixed = _swap_axes(grad_mixed, height, into=grad_out)
    grad_row = _pairings(grad_mixed, values)
    grad_value = _multiply(row.mT, grad_mixed, into=values)
    return grad_value.view(value.shape), grad_row, grad_column


def _contract(row: Tensor, column: Tensor, value: Tensor) -> Tensor:
    """(P_row kron P_column) @ value as a view (B, H, height, width, d)."""
    height, width = row.shape[-1], column.shape[-1]
    row, column = row.to(value.dtype), column.to(value.dtype)
    values = _rows(value, height)
    mixed = row @ values
    swapped = _swap_axes(mixed, width, into=values)
    out = _multiply(column, swapped, into=mixed)
    return _split(out, height).transpose(2, 3)


# The steps of a contraction. A grid of tokens is a matrix for each image and head, with one
# axis of the grid along its rows: (height, width * d) or (width, height * d). Turning one into
# the other is a copy. `into` is memory that is no longer needed: on a CPU, fresh memory for
# every step costs as much as the products.


def _may_overwrite(*tensors: Tensor) -> bool:
    """Whether one of these may hold what is made of the others: none is more than it seems."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or in_forward_mode():
        return False
    same_dtype = all(x.dtype == tensors[0].dtype for x in tensors)
    return same_dtype and not any(map(is_wrapped, tensors))


def _split(x: Tensor, size: int) -> Tensor:
    """(B, H, n, size * d) to (B, H, n, size, d)."""
    return x.view(*x.shape[:3], size, x.shape[3] // size)


def _rows(value: Tensor, height: int, spare: int = 0) -> Tensor:
    """(B, H, N, d) to a copy (B, H, height, width * d)."""
    batch, heads, tokens, channels = value.shape
    return _copied(value, (batch, heads, height, tokens // height * channels), spare)


def _columns(value: Tensor, width: int, into: Tensor) -> Tensor:
    """(B, H, N, d) to a copy (B, H, width, height * d)."""
    batch, heads, tokens, channels = value.shape
    return _transposed(value.view(batch, heads, tokens // width, width, channels), into)


def _swap_axes(mixed: Tensor, other: int, into: Tensor) -> Tensor:
    """(B, H, size, other * d) to a copy (B, H, other, size * d)."""
    return _transposed(_split(mixed, other), into)


def _transposed(grid: Tensor, into: Tensor | None, spare: int = 0) -> Tensor:
    turned = grid.transpose(2, 3)
    batch, heads, size, other, channels = turned.shape
    shape = (batch, heads, size, other * channels)
    if into is None or not _may_overwrite(grid, into):
        return _copied(turned, shape, spare)
    return into.view(turned.shape).copy_(turned).view(shape)


def _copied(x: Tensor, shape: tuple[int, ...], spare: int) -> Tensor:
    """Always a copy, since what it came from is overwritten later; zeros in the spare rows."""
    if spare == 0:
        return x.clone(memory_format=torch.contiguous_format).view(shape)
    memory = x.new_empty(x.numel() + spare * shape[-1])
    memory[x.numel() :].zero_()
    copy = memory[: x.numel()].view(shape)
    copy.view(x.shape).copy_(x)
    return copy


# A CPU takes a product's columns sixteen float32 at a time, and what is left over far slower: one
# with 14 columns needs twice the time of one with 16. So a matrix whose rows become columns is
# read a few rows too far, into the next matrix or the spare rows after the last, and what comes
# of those is dropped.


def _spare_rows(x: Tensor, rows: int) -> int:
    if x.device.type != "cpu" or x.dtype != torch.float32 or not _may_overwrite(x):
        return 0
    missing = -rows % 16
    return missing if missing <= 6 else 0


def _pairings(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y.mT``."""
    batch, heads, rows, channels = y.shape
    spare = _spare_rows(y, rows)
    if spare == 0:
        return x @ y.mT
    wider = y.as_strided((batch, heads, rows + spare, channels), y.stride())
    return (x @ wider.mT)[..., :rows]


def _multiply(factor: Tensor, x: Tensor, into: Tensor) -> Tensor:
    if not _may_overwrite(factor, x, into):
        return factor @ x
    torch.bmm(factor.flatten(0, 1), x.flatten(0, 1), out=into.view(-1, *x.shape[2:]))
    return into.view(x.shape)


def grid_positions(
    grid: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "1 tokens 2"]:
    """(x, y) of each patch of a grid in row-major order."""
    height, width = grid
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], dim=-1).unsqueeze(0)


def position_query_key(
    weight: Float[Tensor, "heads 3"], positions: Num[Tensor, "#batch tokens 2"]
) -> tuple[Float[Tensor, "#batch heads tokens 3"], Float[Tensor, "#batch heads tokens 3"]]:
    """Three channels per token whose dot product is the positional logit, for any tokens.

    Terms that depend on the query alone cancel in the softmax, which leaves
    (a - 2 c x_q) x_k + (b - 2 c y_q) y_k + c (x_k^2 + y_k^2).
    """
    a, b, c = (column.unsqueeze(-1) for column in at_least_single(weight).unbind(-1))
    positions = positions.to(a.dtype)
    # Centred coordinates keep the squares small; the softmax does not see the shift.
    centred = positions - positions.mean(dim=1, keepdim=True)
    x, y = centred.unsqueeze(1).unbind(-1)  # (B, 1, N)
    query = torch.stack([a - 2 * c * x, b - 2 * c * y, c.expand_as(a - x)], dim=-1)
    key = torch.stack([x, y, x**2 + y**2], dim=-1).expand(-1, weight.shape[0], -1, -1)
    return query, key


def padded_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T) V where queries and values differ in channels.

    The fused kernels want one number of channels, a multiple of eight; zeros change nothing.
    """
    channels = max(query.shape[-1], value.shape[-1])
    channels += -channels % 8
    query, key, padded = (F.pad(x, (0, channels - x.shape[-1])) for x in (query, key, value))
    out = fused_attention(query, key, padded, scale=1.0)
    return out[..., : value.shape[-1]]
