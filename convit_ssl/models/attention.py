"""Content self-attention, shared by the plain layers and by the content half of GPSA."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def content_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys value_dim"],
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Softmax attention by the fused kernel of PyTorch.

    Args:
        query, key, value: one row per token and head.
        dropout: probability of dropping an entry of the attention map.
        scale: factor on the logits; head_dim ** -0.5 by default.
    """
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)


def content_map(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention map that `content_attention` never builds: softmax(Q K^T / sqrt(head_dim))."""
    scores: Tensor = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1)


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
        return self.proj_drop(self.proj(merge_heads(out)))

    def attention_map(
        self, x: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        """The dense attention map, for analysis."""
        query, key, _ = self._query_key_value(x)
        return content_map(query, key)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, ...]:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)  # three of (B, H, N, d)


def merge_heads(
    x: Float[Tensor, "batch heads tokens head_dim"],
) -> Float[Tensor, "batch tokens dim"]:
    """Concatenate the heads' outputs along channels."""
    return x.transpose(1, 2).flatten(2)


def split_heads(
    x: Float[Tensor, "batch tokens dim"], num_heads: int
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """The inverse of `merge_heads`."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


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
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drops a residual branch, image by image."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Float[Tensor, batch *rest]) -> Float[Tensor, batch *rest]:
        """Zero the branch of some images, and scale the others so that the mean is kept."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """The drop probability."""
        return f"drop_prob={self.drop_prob:.3f}"
