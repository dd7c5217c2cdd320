"""Which kinds of differentiation are going on: what PyTorch's fused operations cannot follow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_wrapped(x: Tensor) -> bool:
    """By `torch.func`, or by the older vmap of `is_grads_batched`: one tensor stands for many."""
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return wrapped or torch._C._functorch.is_legacy_batchedtensor(x)


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents: inside `torch.func.jvp` or a `dual_level`."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0
