"""Collectives that know how to differentiate, and do nothing on one process.

Convention shared by all losses here: each process returns the loss of its own
images, and the loss of the whole batch is the mean over processes. Gradients
are averaged over processes by DistributedDataParallel, so every backward below
*sums* over processes, and N processes of batch B then train exactly as one
process of batch N x B.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Index of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def full_precision(x: Tensor) -> Tensor:
    """Half precisions as fp32; fp32 and fp64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = rows.shape[0]
        return _concatenated(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = process_rank() * ctx.count
        return total[start : start + ctx.count]


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _concatenated(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_rows(rows: Float[Tensor, "batch dim"]) -> Float[Tensor, "all_rows dim"]:
    """Rows of all processes in rank order, differentiable.

    Every process must hold the same number of rows (drop the last, smaller
    batch of an epoch). One collective forward, one backward.
    """
    if world_size() == 1:
        return rows
    return cast(Tensor, _GatherRows.apply(rows))


@torch.no_grad()
def gather_constant_rows(rows: Float[Tensor, "batch ..."]) -> Float[Tensor, "all_rows ..."]:
    """As :func:`gather_rows`, for rows that carry no gradient."""
    return rows.detach() if world_size() == 1 else _concatenated(rows.detach())


def sum_over_processes(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Elementwise sum over processes, differentiable."""
    if world_size() == 1:
        return x
    return cast(Tensor, _SumOverProcesses.apply(x))
