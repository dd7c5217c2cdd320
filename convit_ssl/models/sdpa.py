"""PyTorch's fused attention, and the derivatives that it does not have.

On a CPU its kernel has one derivative, in reverse mode. Here gradients of gradients, tangents
(`torch.func.jvp`) and nested transforms of `torch.func` go by the formula, exact and slower, and
everything else goes through the kernel as before.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.models.autocast import without_autocast
from convit_ssl.models.products import blas_products
from convit_ssl.models.transforms import in_forward_mode, is_wrapped


def content_logits(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """Q K^T times `scale`, by default 1 / sqrt(head_dim)."""
    scaled: Tensor = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    return scaled @ key.mT


def content_map(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    scale: float | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention map that the fused kernel never builds; in a wider `dtype` where asked."""
    return content_logits(query, key, scale).softmax(dim=-1, dtype=dtype)


def softmax_gradient(
    grad: Float[Tensor, "batch heads queries keys"],
    softmax: Float[Tensor, "batch heads queries keys"],
) -> Float[Tensor, "batch heads queries keys"]:
    """Of the logits, from that of their softmax over the keys."""
    made: Tensor = torch.ops.aten._softmax_backward_data(grad, softmax, -1, softmax.dtype)
    return made


def fused_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """`scaled_dot_product_attention`, differentiable in either mode and as often as one likes.

    Args:
        query: one row per token and head.
        key: the same.
        value: the same.
        dropout: probability of dropping an entry of the attention map.
        scale: of the logits, by default 1 / sqrt(head_dim).
    """
    if dropout == 0.0 and not torch.compiler.is_compiling():
        inputs = (query, key, value)
        derived = torch.is_grad_enabled() and any(map(is_wrapped, inputs))
        if derived or in_forward_mode():
            with without_autocast(query.device):
                return content_map(query, key, scale) @ value
        if torch.is_grad_enabled() and _is_flash_on_cpu(query, key, value):
            out: Tensor = FlashOnCpu.apply(*inputs, scale)[0]
            return out
    with blas_products(query):
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)


def _is_flash_on_cpu(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether PyTorch would choose it, by its own conditions (`sdp_utils_cpp.h`)."""
    if query.device.type != "cpu" or torch._C._get_tracing_state() is not None:
        return False
    inputs = (query, key, value)
    return (
        torch.backends.cuda.flash_sdp_enabled()  # of any device, in spite of its name
        and all(x.numel() > 0 and x.stride(-1) == 1 for x in inputs)
        and all(x.shape[-1] == query.shape[-1] and x.dtype == query.dtype for x in inputs)
    )


class FlashOnCpu(torch.autograd.Function):
    """The fused kernel of a CPU, with a backward pass that can itself be differentiated."""

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, scale: float | None
    ) -> tuple[Tensor, Tensor]:
        """Shapes (B, H, N, d) three times."""
        with blas_products(query):
            out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, scale=scale
            )
        return out, log_sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what the kernel's own backward pass reads."""
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        """By the kernel, or by the formula where gradients of this are wanted."""
        if grad is None:
            return (None,) * 4
        query, key, value, out, log_sums = ctx.saved_tensors
        with without_autocast(grad.device):
            if torch.is_grad_enabled() or is_wrapped(grad):
                return *_gradients(grad, query, key, value, ctx.scale), None
            with blas_products(grad):
                made = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    grad, query, key, value, out, log_sums, 0.0, False, scale=ctx.scale
                )
            return *made, None


def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    content = content_map(query, key, scale)
    grad_logits = softmax_gradient(grad @ value.mT, content)
    grad_logits = grad_logits * (query.shape[-1] ** -0.5 if scale is None else scale)
    return grad_logits @ key, grad_logits.mT @ query, content.mT @ grad
