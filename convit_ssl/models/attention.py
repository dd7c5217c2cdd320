"""Content self-attention, shared by the plain layers and by the content half of GPSA."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.models.autocast import without_autocast, without_common_part
from convit_ssl.models.sdpa import content_logits, content_map, fused_attention, softmax_gradient
from convit_ssl.models.transforms import in_forward_mode

__all__ = ["content_logits", "content_map"]

# The CPU's fused kernel is slow in bfloat16, above all its backward pass for few tokens (ten
# times at 36), and a little slow in float32 for very few. Up to so many tokens explicit products
# are faster; more would cost memory. With the class token of a square grid, so that layers with it
# and without go one way: else there is one more graph to compile.
EXPLICIT_TOKENS = {torch.bfloat16: 20 * 20 + 1, torch.float32: 5 * 5 + 1}
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
    if dropout == 0.0 and explicit_is_faster(query.device, query.dtype, key.shape[-2]):
        return explicit_attention(query, key, value)
    return fused_attention(query, key, value, dropout)


def explicit_is_faster(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    """Whether attention maps should be built, and not only their products."""
    if device.type != "cpu":
        return False
    if dtype == torch.float32 and torch.compiler.is_compiling():
        return False  # a threshold would be one more graph
    return tokens <= EXPLICIT_TOKENS.get(dtype, 0)


class Mixture(NamedTuple):
    """What is mixed with a map of content: (1 - g) content + g position.

    Both in float32 at least, which take the gradients, and in the dtype of the products.
    """

    content_gate: Float[Tensor, "batch heads 1 1"]
    rounded_gate: Float[Tensor, "batch heads 1 1"]
    position: Float[Tensor, "heads queries keys"]  # times g
    rounded_position: Float[Tensor, "heads queries keys"]


def explicit_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    mixture: Mixture | None = None,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """softmax(Q K^T / sqrt(head_dim)) V by way of the map, mixed with another where there is one.

    In training the backward pass makes the map again where keeping it would cost memory.
    """
    with without_autocast(query.device):
        if torch.is_grad_enabled() and not in_forward_mode():
            rounded = mixture is not None and mixture.rounded_gate.dtype != mixture.position.dtype
            few = key.shape[-2] <= KEPT_TOKENS and not torch.compiler.is_compiling()
            keep = few and not rounded  # the gates' gradients want it as it was before rounding
            others = mixture or (None,) * len(Mixture._fields)
            out: Tensor = AttentionByMap.apply(query, key, value, keep, *others)[0]
            return out
        return _mixed(content_map(query, key), mixture) @ value


def _mixed(content: Tensor, mixture: Mixture | None) -> Tensor:
    if mixture is None:
        return content
    return torch.addcmul(mixture.rounded_position, content, mixture.rounded_gate)


class AttentionByMap(torch.autograd.Function):
    """`explicit_attention`, which saves its inputs, and of the maps at most that of the content.

    The gradients of a mixture go to its parts in float32, none to what was rounded from them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, keep: bool, *mixture: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Shapes (B, H, N, d) three times, then those of a `Mixture`."""
        content = content_map(query, key)
        return _mixed(content, _mixture(mixture)) @ value, content

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what is needed, and the map of the content where that was asked for."""
        query, key, value, keep, gate, rounded_gate, _, rounded_position = inputs
        # Of the exact parts of the mixture only the dtype matters: that of their gradients.
        ctx.exact = None if gate is None else gate.dtype
        ctx.save_for_backward(
            query, key, value, rounded_gate, rounded_position, output[1] if keep else None
        )
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        """What autograd would do; for gradients of gradients the map is made again in any case."""
        if grad is None:
            return (None,) * 8
        query, key, value, gate, position, content = ctx.saved_tensors
        with without_autocast(grad.device):  # the dtypes are those of the forward pass
            # Each goes into two products, both of which would copy it.
            query, key, grad = query.contiguous(), key.contiguous(), grad.contiguous()
            exact = content
            if content is None or torch.is_grad_enabled():
                exact = content_map(query, key, dtype=ctx.exact)
                content = exact.to(query.dtype)
            scale = query.shape[-1] ** -0.5
            if gate is None:
                grad_value = content.mT @ grad
                grad_content = grad @ value.mT
                of_mixture: tuple[Tensor | None, ...] = (None,) * 4
            else:
                grad_value = torch.addcmul(position, content, gate).mT @ grad
                grad_content = grad @ without_common_part(value)[0].mT
                # With the map as it was before it was rounded: where it hardly differs from that of
                # the positions, the difference would be of rounding.
                paired = (grad_content * exact).sum((-2, -1), keepdim=True, dtype=ctx.exact)
                of_mixture = (paired, None, grad_content.sum(0, dtype=ctx.exact), None)
                scale = scale * gate
            grad_logits = softmax_gradient(grad_content, content) * scale
            return grad_logits @ key, grad_logits.mT @ query, grad_value, None, *of_mixture


def _mixture(parts: tuple[Tensor | None, ...]) -> Mixture | None:
    return None if parts[0] is None else Mixture(*parts)  # type: ignore[arg-type]


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
        self.act: nn.Module = nn.GELU()
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
