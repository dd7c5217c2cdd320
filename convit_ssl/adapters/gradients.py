"""Exchanging gradients in half the bytes."""

# No postponed annotations here: DDP looks at those of its hooks.
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel's


def average_in_bf16(
    _state: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """The mean of a bucket of gradients over processes, rounded to bf16 on its way.

    PyTorch's own hook of this kind refuses gloo, and so CPUs, where this one is tested.

    Args:
        bucket: gradients of DDP, flat, in fp32.

    Returns:
        The same bucket with the means, once they are there.
    """
    buffer = bucket.buffer()
    rounded = (buffer / dist.get_world_size()).to(torch.bfloat16)
    work: Any = dist.all_reduce(rounded, async_op=True)

    def back(_done: torch.futures.Future[Any]) -> torch.Tensor:
        buffer.copy_(rounded)
        return buffer

    future: torch.futures.Future[torch.Tensor] = work.get_future().then(back)
    return future


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], dtype: torch.dtype | None = None) -> None:
    """Mean of the gradients over processes, in place. A collective call.

    For steps whose backward passes DistributedDataParallel does not see.

    Args:
        parameters: the same ones, in the same order, in all processes.
        dtype: in which they are exchanged; None for their own.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    buckets: list[list[torch.Tensor]] = [[]]
    for gradient in gradients:
        held = sum(other.nbytes for other in buckets[-1])
        if buckets[-1] and (
            held + gradient.nbytes > BUCKET_BYTES or gradient.dtype != buckets[-1][0].dtype
        ):
            buckets.append([])
        buckets[-1].append(gradient)
    under_way = []
    for bucket in filter(None, buckets):
        flat = torch.cat([gradient.flatten() for gradient in bucket]) / dist.get_world_size()
        flat = flat if dtype is None else flat.to(dtype)
        under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in under_way:
        work.wait()
        parts = flat.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
