"""Content self-attention, shared by the plain layers and by the content half of GPSA."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.models.position import without_autocast

# The CPU's fused kernel is slow in bfloat16, above all its backward pass for few tokens (ten
# times at 36), and a little slow in float32 for very few. Up to so many tokens explicit products
# are faster; more would cost memory. With the class token of a square grid, so that layers with it
# and without go one way: else there is one more graph to compile.
EXPLICIT_TOKENS = {torch.bfloat16: 16 * 16 + 1, torch.float32: 5 * 5 + 1}
# Up to so many tokens the maps are small enough to be kept for the backward pass.
KEPT_TOKENS = 8 * 8 + 1


def content_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """softmax(Q K^T / sqrt(head_dim)) V, by PyTorch's fused kernel wherever that is faster.

    Args:
        query: one row per token and head.
        key: the same.
        value: the same.
        dropout: probability of dropping an entry of the attention map.
    """
    if dropout == 0.0 and explicit_is_faster(query, key):
        return explicit_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


def explicit_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether attention maps should be built, and not only their products."""
    if query.device.type != "cpu":
        return False
    if query.dtype == torch.float32 and torch.compiler.is_compiling():
        return False  # a threshold would be one more graph
    return key.shape[-2] <= EXPLICIT_TOKENS.get(query.dtype, 0)


def content_logits(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
) -> Float[Tensor, "batch heads queries keys"]:
    """Q K^T / sqrt(head_dim)."""
    scaled: Tensor = query * query.shape[-1] ** -0.5
    return scaled @ key.mT


def content_map(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention map that the fused kernel never builds."""
    return content_logits(query, key).softmax(dim=-1)


def explicit_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    position: Float[Tensor, "heads queries keys"] | None = None,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """(softmax(Q K^T / sqrt(head_dim)) + position) V, by way of the map.

    In training the backward pass makes the map again where keeping it would cost memory.
    """
    with without_autocast(query.device):
        if torch.is_grad_enabled() and key.shape[-2] > KEPT_TOKENS:
            out: Tensor = RemadeMap.apply(  # type: ignore[no-untyped-call]
                query, key, value, position
            )
            return out
        mixed = content_map(query, key)
        return (mixed if position is None else mixed + position) @ value


class RemadeMap(torch.autograd.Function):
    """`explicit_attention`, which saves its inputs and not the maps."""

    generate_vmap_rule = True

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, position: Tensor | None) -> Tensor:
        """Shapes (B, H, N, d) three times, (H, N, N)."""
        mixed = content_map(query, key)
        return (mixed if position is None else mixed + position) @ value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """Keep the inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The map once more, and what autograd would do with it."""
        with without_autocast(grad.device):  # the dtypes are those of the forward pass
            return _map_gradients(grad, *ctx.saved_tensors)


def _map_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None
) -> tuple[Tensor | None, ...]:
    content = content_map(query, key)
    mixed = content if position is None else content + position
    grad_value = mixed.mT @ grad
    grad_mixed = grad @ value.mT
    grad_position = None if position is None else grad_mixed.sum(0)
    grad_logits = torch.ops.aten._softmax_backward_data(grad_mixed, content, -1, content.dtype)
    grad_logits = grad_logits * query.shape[-1] ** -0.5
    return grad_logits @ key, grad_logits.mT @ query, grad_value, grad_position


class SelfAttention(nn.Module):
    """Multi-head self-attention of a plain ViT, with the official ConViT's parameter names."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Attend over all tokens."""
        query, key, value = self._query_key_value(x)
        dropout = self.attn_drop if self.training else 0.0
        out = content_attention(query, key, value, dropout)
        projected: Tensor = self.proj_drop(self.proj(merge_heads(out)))
        return projected

    def attention_map(
        self, x: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        """The dense attention map, for analysis."""
        query, key, _ = self._query_key_value(x)
        return content_map(query, key)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, ...]:
        parts = self.qkv(x).chunk(3, dim=-1)
        return tuple(split_heads(part, self.num_heads) for part in parts)


def merge_heads(
    x: Float[Tensor, "batch heads tokens head_dim"],
) -> Float[Tensor, "batch tokens dim"]:
    """Concatenate the heads' outputs along channels."""
    return x.transpose(1, 2).flatten(2)


def split_heads(
    x: Float[Tensor, "batch tokens dim"], num_heads: int
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """The inverse of `merge_heads`."""
    # In numbers, not -1, of which a batch without images would have any.
    return x.view(*x.shape[:2], num_heads, x.shape[-1] // num_heads).transpose(1, 2)


class Mlp(nn.Module):
    """The two-layer perceptron of a transformer block."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Apply to each token on its own."""
        out: Tensor = self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        return out


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drops a residual branch, image by image."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], mask: Float[Tensor, "batch 1 1"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Zero the branch of some images, and scale the others so that the mean is kept.

        Args:
            x: the branch.
            mask: 1 where an image keeps it, else 0; None draws one.
        """
        if not self.training or self.drop_prob == 0.0:
            return x
        if mask is None:
            mask = self.draw(torch.empty((len(x), 1, 1), dtype=x.dtype, device=x.device))
        return x * (mask.to(x.dtype) / (1.0 - self.drop_prob))

    def draw(self, mask: Tensor) -> Tensor:
        """Fill a mask in place."""
        return mask.bernoulli_(1.0 - self.drop_prob)

    def extra_repr(self) -> str:
        """The drop probability."""
        return f"drop_prob={self.drop_prob:.3f}"
