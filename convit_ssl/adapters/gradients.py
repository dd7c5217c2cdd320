"""Gradients: exchanged in half the bytes and in one order, and kept where they lie."""

# No postponed annotations here: DDP looks at those of its hooks.
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel's


class GradientBuffers:
    """The last step's gradients set to 0 in place, for this step's to be added to.

    A step in parts frees activations around the gradients that it adds up. Allocated anew in each
    step, gradients come to lie between activations and cut the C library's free memory into pieces
    that the next part's activations do not fit: 15 % more resident memory for the same tensors.

    Args:
        optimizer: its parameters are looked at.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=False)
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        self._held = [(p, p.grad, p.grad._version) for p in parameters if p.grad is not None]

    def drop_untouched(self) -> None:
        """Parameters that no gradient reached have none, as after ``zero_grad``."""
        for parameter, gradient, version in self._held:
            if parameter.grad is gradient and gradient._version == version:
                parameter.grad = None


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


class _SumOfParameters(nn.Module):
    """Stands in for a network in one step of DistributedDataParallel."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self._held = parameters  # a list, so that they are not registered a second time

    def forward(self, _unused: torch.Tensor) -> torch.Tensor:
        """A scalar that every parameter has a gradient of; DDP on a GPU wants an argument."""
        return torch.stack([0.0 * p.flatten()[0].float() for p in self._held]).sum()


def settle_buckets(model: DistributedDataParallel) -> None:
    """Let DDP lay out its buckets for good, before the first step. A collective call.

    DDP reduces the first step in the order of registration and lays its buckets out anew after it,
    in the order in which gradients came. From three processes on, the order in which an all-reduce
    adds depends on the place in the bucket. So the first step of a run that resumed was rounded
    otherwise than the same step of a run that was never stopped.

    Args:
        model: wrapped a moment ago, with its communication hook; it has no gradients yet.
    """
    network = model.module
    parameters = [p for p in network.parameters() if p.requires_grad]
    model.module = _SumOfParameters(parameters)
    try:
        model(torch.zeros((), device=parameters[0].device)).backward()
    finally:
        model.module = network
    for parameter in parameters:
        parameter.grad = None


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
