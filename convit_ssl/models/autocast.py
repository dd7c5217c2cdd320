"""Where autocast is, and how to be without it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_single(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_widened(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products in float32 cost no more: a CPU widens float16 for each of them."""
    return device.type == "cpu" and dtype == torch.float16


def without_common_part(value: Tensor) -> tuple[Tensor, Tensor | None]:
    """Values (B, H, N, d) less one of them, in half precision, and that one (B, H, 1, d).

    The rows of an attention map sum to one, so what all values have in common changes no gradient
    of a map or of a gate. Rounded, it would hide what they do not have in common.
    """
    if value.dtype not in (torch.float16, torch.bfloat16):
        return value, None
    middle = value.shape[-2] // 2
    common = value[..., middle : middle + 1, :]
    return value - common, common


# Asked once: before PyTorch 2.13 no compiler can trace the question.
_KINDS = ("cpu", "cuda", "hpu", "mps", "xla", "xpu")
_WITH_AUTOCAST = frozenset(kind for kind in _KINDS if torch.amp.is_autocast_available(kind))


def has_autocast(kind: str) -> bool:
    """Whether there is autocast for a type of device; the meta device has none."""
    return kind in _WITH_AUTOCAST


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """The block runs in the dtypes of its tensors."""
    if not has_autocast(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
