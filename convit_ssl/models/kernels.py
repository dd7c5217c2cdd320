"""Triton kernels for the positional half of GPSA on a GPU, in half precision.

What `position` does in a dozen passes over the values, products with factors of 14 rows among
them that no library has a fast way for, is done in one: a program holds the grid of one image and
head, sixteen channels at a time, and contracts it along both axes.

Import it only where there is Triton; `fused` decides.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from convit_ssl.models.fused import Gradients

# Channels of a head that are held at once: 32 bytes, the least that memory hands out.
BLOCK = 16
# A product on a tensor core wants sixteen rows at least.
LEAST_SIDE = 16
# Up to so many, one warp does a program of the backward kernel.
FEW_PATCHES = 8 * 8


@triton.jit
def _swap_axes(x, FIRST: tl.constexpr, SECOND: tl.constexpr, BLOCK: tl.constexpr):
    """(first, second * channels) to (second, first * channels)."""
    parted = tl.reshape(x, (FIRST, SECOND, BLOCK))
    return tl.reshape(tl.permute(parted, (1, 0, 2)), (SECOND, FIRST * BLOCK))


@triton.jit
def _load_factor(pointer, size, SIDE: tl.constexpr):
    """(size, size), zeros around."""
    index = tl.arange(0, SIDE)
    inside = (index[:, None] < size) & (index[None, :] < size)
    return tl.load(pointer + index[:, None] * size + index[None, :], mask=inside, other=0.0)


@triton.jit
def _store_factor(pointer, values, size, SIDE: tl.constexpr):
    index = tl.arange(0, SIDE)
    inside = (index[:, None] < size) & (index[None, :] < size)
    tl.store(pointer + index[:, None] * size + index[None, :], values, mask=inside)


# Two functions, because one of both, with the steps along either axis as arguments, has Triton
# keep fifteen more registers at 32 x 32 patches.
@triton.jit
def _by_row(
    height, width, token, channel,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Where a tile (height, width * channels) lies, and what of it is there."""
    row = tl.arange(0, ROWS)[:, None]
    across = tl.arange(0, COLUMNS * BLOCK)[None, :]
    column, channel = across // BLOCK, channel + across % BLOCK
    inside = (row < height) & (column < width) & (channel < CHANNELS)
    return (row * width + column) * token + channel, inside


@triton.jit
def _by_column(
    height, width, token, channel,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same of a tile (width, height * channels)."""
    column = tl.arange(0, COLUMNS)[:, None]
    across = tl.arange(0, ROWS * BLOCK)[None, :]
    row, channel = across // BLOCK, channel + across % BLOCK
    inside = (row < height) & (column < width) & (channel < CHANNELS)
    return (row * width + column) * token + channel, inside


@triton.jit
def _pairings(x, y, total, ROWS: tl.constexpr, SUM: tl.constexpr, SHARES: tl.constexpr):
    """``total + x @ y.T`` of two (rows, sum), the sum in shares, one for each warp.

    As one product every warp would hold all of both.
    """
    left = tl.permute(tl.reshape(x, (ROWS, SHARES, SUM // SHARES)), (1, 0, 2))
    right = tl.permute(tl.reshape(y, (ROWS, SHARES, SUM // SHARES)), (1, 2, 0))
    return tl.dot(left, right, total)


@triton.jit
def _forward(
    content, gate, value, row, column, out,
    content_batch, content_head, content_token, gate_batch, gate_head,
    value_batch, value_head, value_token,
    row_batch, row_head, column_batch, column_head,
    out_batch, out_head, out_token,
    heads, height, width,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0) % PARTS
    head = (tl.program_id(0) // PARTS) % heads
    image = (tl.program_id(0) // PARTS // heads).to(tl.int64)
    content += image * content_batch + head * content_head
    value += image * value_batch + head * value_head
    out += image * out_batch + head * out_head
    content_gate = tl.load(gate + image * gate_batch + head * gate_head).to(tl.float32)
    kind = value.dtype.element_ty
    along_rows = _load_factor(row + image * row_batch + head * row_head, height, ROWS).to(kind)
    along_columns = _load_factor(
        column + image * column_batch + head * column_head, width, COLUMNS
    ).to(kind)
    channel = part * BLOCK
    where, inside = _by_column(height, width, value_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK)
    values = tl.load(value + where, mask=inside, other=0.0)
    mixed = tl.dot(along_columns, values).to(kind)
    mixed = _swap_axes(mixed, COLUMNS, ROWS, BLOCK)
    where, inside = _by_row(height, width, content_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK)
    total = tl.load(content + where, mask=inside, other=0.0).to(tl.float32)
    total *= content_gate
    total += tl.dot(along_rows, mixed)
    where, inside = _by_row(height, width, out_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK)
    tl.store(out + where, total.to(kind), mask=inside)


@triton.jit
def _backward(
    grad, content, gate, value, row, column,
    grad_content, grad_gate, grad_value, grad_row, grad_column,
    grad_batch, grad_head, grad_token,
    content_batch, content_head, content_token, gate_batch, gate_head,
    value_batch, value_head, value_token,
    row_batch, row_head, column_batch, column_head,
    out_batch, out_head, out_token,
    heads, height, width,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, SHARES: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % heads
    image = (tl.program_id(0) // heads).to(tl.int64)
    grad += image * grad_batch + head * grad_head
    content += image * content_batch + head * content_head
    content_gate = tl.load(gate + image * gate_batch + head * gate_head).to(tl.float32)
    value += image * value_batch + head * value_head
    grad_content += image * out_batch + head * out_head
    grad_value += image * out_batch + head * out_head
    kind = value.dtype.element_ty
    along_rows = _load_factor(row + image * row_batch + head * row_head, height, ROWS).to(kind)
    along_columns = _load_factor(
        column + image * column_batch + head * column_head, width, COLUMNS
    ).to(kind)
    rows_total = tl.zeros((SHARES, ROWS, ROWS), tl.float32)
    columns_total = tl.zeros((SHARES, COLUMNS, COLUMNS), tl.float32)
    gate_total = tl.zeros((ROWS,), tl.float32)
    for channel in range(0, CHANNELS, BLOCK):
        where, inside = _by_row(height, width, grad_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK)
        grads = tl.load(grad + where, mask=inside, other=0.0)  # (i, j * c)
        where, inside = _by_row(
            height, width, content_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK
        )
        contents = tl.load(content + where, mask=inside, other=0.0).to(tl.float32)
        # As `autocast.without_common_part` does.
        common = value + height * width // 2 * value_token + channel
        across = tl.arange(0, COLUMNS * BLOCK)[None, :] % BLOCK
        there = channel + across < CHANNELS
        contents -= tl.load(common + across, mask=there, other=0.0).to(tl.float32)
        gate_total += tl.sum(contents * grads.to(tl.float32), 1)
        where, inside = _by_row(height, width, out_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK)
        scaled = content_gate * grads.to(tl.float32)
        tl.store(grad_content + where, scaled.to(kind), mask=inside)
        where, inside = _by_column(
            height, width, value_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK
        )
        values = tl.load(value + where, mask=inside, other=0.0)  # (l, k * c)
        across = tl.arange(0, ROWS * BLOCK)[None, :] % BLOCK
        there = inside & (channel + across < CHANNELS)
        values -= tl.load(common + across, mask=there, other=0.0)
        mixed = tl.dot(along_columns, values).to(kind)  # (j, k * c)
        mixed = _swap_axes(mixed, COLUMNS, ROWS, BLOCK)  # (k, j * c)
        rows_total = _pairings(grads, mixed, rows_total, ROWS, COLUMNS * BLOCK, SHARES)
        grad_mixed = tl.dot(tl.trans(along_rows), grads).to(kind)  # (k, j * c)
        grad_mixed = _swap_axes(grad_mixed, ROWS, COLUMNS, BLOCK)  # (j, k * c)
        columns_total = _pairings(grad_mixed, values, columns_total, COLUMNS, ROWS * BLOCK, SHARES)
        grad_values = tl.dot(tl.trans(along_columns), grad_mixed)  # (l, k * c)
        where, inside = _by_column(
            height, width, out_token, channel, CHANNELS, ROWS, COLUMNS, BLOCK
        )
        tl.store(grad_value + where, grad_values.to(kind), mask=inside)
    program = tl.program_id(0).to(tl.int64)
    tl.store(grad_gate + program, tl.sum(gate_total, 0))
    _store_factor(grad_row + program * height * height, tl.sum(rows_total, 0), height, ROWS)
    _store_factor(grad_column + program * width * width, tl.sum(columns_total, 0), width, COLUMNS)


def _padded(size: int) -> int:
    return max(LEAST_SIDE, 1 << (size - 1).bit_length())


def _is_large(rows: int, columns: int) -> bool:
    return rows * columns > LEAST_SIDE**2


def stages(rows: int, columns: int, memory: int) -> int:
    """Tiles that the backward kernel loads ahead in a multiprocessor's memory of so many bytes.

    Each takes two, and what is being worked on as much as two more at most.
    """
    tile = 2 * rows * columns * BLOCK
    most = 3 if _is_large(rows, columns) else 2  # measured on an H200
    return max([1, *(n for n in range(1, most + 1) if (2 * n + 0.5) * tile <= memory)])


def reach_gpu(index: int) -> dict[str, Any]:
    """What Triton's driver says of a GPU; built by a C compiler where that was never done.

    Raises:
        Exception: of whatever kind, where Triton cannot be used here.
    """
    return dict(driver.active.utils.get_device_properties(index))


@functools.cache
def _memory(device: torch.device) -> int:
    if device.type == "cpu":  # the interpreter
        return 0
    return int(reach_gpu(device.index)["max_shared_mem"])


def warps(height: int, width: int) -> int:
    """Of the backward kernel, as measured on an H200; of few patches most of a tile is empty."""
    if _is_large(_padded(height), _padded(width)):
        return 8
    return 4 if height * width > FEW_PATCHES else 1


def add_separable(
    content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor, out: Tensor
) -> None:
    """``content_gate * content + (row kron column) @ value`` into `out`, as in `position`."""
    batch, heads, _, channels = value.shape
    height, width = row.shape[-1], column.shape[-1]
    rows, columns = _padded(height), _padded(width)
    parts = -(-channels // BLOCK)
    _forward[(batch * heads * parts,)](
        content, content_gate, value, row, column, out,
        *content.stride()[:3], *content_gate.stride()[:2],
        *value.stride()[:3], *row.stride()[:2], *column.stride()[:2],
        *out.stride()[:3], heads, height, width,
        CHANNELS=channels, ROWS=rows, COLUMNS=columns, BLOCK=BLOCK, PARTS=parts,
        num_warps=8 if _is_large(rows, columns) else 4,
    )  # fmt: skip


def separable_gradients(
    grad: Tensor, content: Tensor, content_gate: Tensor, value: Tensor, row: Tensor, column: Tensor,
    made: Gradients,
) -> None:  # fmt: skip
    """Gradients of all inputs into `made`; of gates and factors, for each image separately."""
    batch, heads, _, channels = value.shape
    height, width = row.shape[-1], column.shape[-1]
    rows, columns = _padded(height), _padded(width)
    of_program = warps(height, width)
    _backward[(batch * heads,)](
        grad, content, content_gate, value, row, column, *made,
        *grad.stride()[:3], *content.stride()[:3], *content_gate.stride()[:2],
        *value.stride()[:3], *row.stride()[:2], *column.stride()[:2],
        *made.value.stride()[:3], heads, height, width,
        CHANNELS=channels, ROWS=rows, COLUMNS=columns, BLOCK=BLOCK, SHARES=of_program,
        num_warps=of_program, num_stages=stages(rows, columns, _memory(value.device)),
    )  # fmt: skip
