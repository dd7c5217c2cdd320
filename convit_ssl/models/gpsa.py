"""Gated positional self-attention (GPSA), exact and without an N x N positional map.

With one gate g = sigmoid(gating_param) per head (ConViT, arXiv:2103.10697, section 3),

    A = (1 - g) softmax(Q K^T / sqrt(d)) + g softmax(pos_proj(dx, dy, dx^2 + dy^2)),  out = A V.

Both softmaxes have rows that sum to one, so the mix needs no renormalisation and the content
half can use a fused kernel. The positional logit is a sum of a term in dx and a term in dy, so
over a full grid its softmax is the Kronecker product of a row factor and a column factor, and
``P @ V`` is two small contractions: O(N (gh + gw)) instead of O(N^2) per channel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from convit_ssl.models.attention import content_attention, content_map, merge_heads, split_heads


class AttentionMaps(NamedTuple):
    """Dense attention of one layer. Plain layers have no positional part and no gate."""

    content: Float[Tensor, "batch heads tokens tokens"]
    position: Float[Tensor, "heads tokens tokens"] | None
    mixed: Float[Tensor, "batch heads tokens tokens"]
    gate: Float[Tensor, " heads"] | None


class PositionFactors(NamedTuple):
    """The positional attention of each head as row and column softmaxes (rows sum to one)."""

    row: Float[Tensor, "heads height height"]
    column: Float[Tensor, "heads width width"]


class GPSA(nn.Module):
    """Gated positional self-attention over a grid of patches (no class token).

    Args:
        dim: channels of a token.
        num_heads: attention heads; a square number when `local_init` is called.
        locality_strength: inverse squared width of the positional attention at init, in
            patches ** -2 (the paper's alpha).
        use_gating: False gives the paper's ungated layer (PSA): one softmax over the sum of
            the content and the positional logits.
        attn_drop: dropout on the mixed attention map; any rate above zero takes the dense path.

    Parameters keep the official names: qk, v, proj, pos_proj, gating_param.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        locality_strength: float = 1.0,
        use_gating: bool = True,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        self.locality_strength = locality_strength
        self.use_gating = use_gating
        self.qk = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.pos_proj = nn.Linear(3, num_heads)
        self.proj_drop = nn.Dropout(proj_drop)
        if use_gating:
            self.gating_param = nn.Parameter(torch.ones(num_heads))

    def local_init(self) -> None:
        """Make the layer a convolution: each head attends at one offset of a square kernel.

        Head i attends at the offset dx = i // k - (k - 1) / 2, dy = i % k - (k - 1) / 2 in
        patches, k the root of the head count, with variance 1 / (2 locality_strength) along
        each axis; the values pass unchanged. (Paper, section 3; head order of the release.)

        Raises:
            ValueError: the head count is not a square.
        """
        kernel = math.isqrt(self.num_heads)
        if kernel**2 != self.num_heads:
            raise ValueError(
                f"local_init places the heads on a square kernel, so num_heads={self.num_heads} "
                f"must be a square such as {kernel**2} or {(kernel + 1) ** 2}; "
                "or set local_init=False"
            )
        offset = torch.arange(kernel, dtype=torch.float32) - (kernel - 1) / 2
        with torch.no_grad():
            self.v.weight.copy_(torch.eye(self.dim))
            self.pos_proj.weight[:, 0] = 2 * offset.repeat_interleave(kernel)
            self.pos_proj.weight[:, 1] = 2 * offset.repeat(kernel)
            self.pos_proj.weight[:, 2] = -1.0
            self.pos_proj.weight.mul_(self.locality_strength)

    @property
    def gate(self) -> Float[Tensor, " heads"]:
        """sigmoid(gating_param): the share of positional attention in each head."""
        return torch.sigmoid(self.gating_param)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Num[Tensor, "#batch tokens 2"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend over the patches of a grid, or over a subset of them.

        Args:
            x: tokens; all of the grid in row-major order, unless `positions` is given.
            grid: height and width in patches.
            positions: (x, y) of each token in patches, where the grid is incomplete.

        Raises:
            ValueError: the number of tokens is not height x width and no positions are given.
        """
        height, width = grid
        if positions is None and x.shape[1] != height * width:
            raise ValueError(
                f"{x.shape[1]} tokens do not fill a grid of {height} x {width} patches; "
                "pass positions=(x, y) per token for a subset"
            )
        if self.training and self.attn_drop.p > 0:
            out = self._dense(x, grid, positions)
        else:
            query, key, value = self._query_key_value(x)
            if not self.use_gating:
                out = self._ungated(query, key, value, grid, positions)
            else:
                gate = self.gate.to(value.dtype).view(-1, 1, 1)
                content = content_attention(query, key, value)
                if positions is None:
                    position = separable_attention(self.position_factors(grid), value)
                else:
                    position = self._subset_attention(value, positions)
                out = torch.lerp(content, position.to(content.dtype), gate)
        return self.proj_drop(self.proj(merge_heads(out)))

    def position_factors(self, grid: tuple[int, int]) -> PositionFactors:
        """Row and column softmaxes whose Kronecker product is the positional attention.

        Computed in float32 whatever the autocast state: the logits grow with the square of the
        grid, beyond the resolution of half precision.
        """
        height, width = grid
        with torch.autocast(self.pos_proj.weight.device.type, enabled=False):
            weight = at_least_single(self.pos_proj.weight)
            # The bias cancels in the softmax; its zero stays in the graph, since a parameter
            # without a gradient stops DistributedDataParallel.
            row = axis_logits(weight[:, 1], weight[:, 2], height)
            row = row + 0.0 * self.pos_proj.bias.view(-1, 1, 1)
            column = axis_logits(weight[:, 0], weight[:, 2], width)
            return PositionFactors(row.softmax(dim=-1), column.softmax(dim=-1))

    def position_map(self, grid: tuple[int, int]) -> Float[Tensor, "heads tokens tokens"]:
        """The dense positional attention, for analysis. Rows are queries."""
        row, column = self.position_factors(grid)
        dense = torch.einsum("hik,hjl->hijkl", row, column)
        return dense.flatten(3, 4).flatten(1, 2)

    def attention_maps(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Num[Tensor, "#batch tokens 2"] | None = None,
    ) -> AttentionMaps:
        """The dense maps that `forward` never builds. Rows are queries, columns keys."""
        query, key, _ = self._query_key_value(x)
        content = content_map(query, key)
        if positions is None:
            position = self.position_map(grid)
        else:
            pos_query, pos_key = self._position_query_key(positions)
            position = (pos_query @ pos_key.transpose(-2, -1)).softmax(dim=-1)
        if self.use_gating:
            gate = self.gate
            mixed = torch.lerp(content, position.to(content.dtype), gate.view(-1, 1, 1))
            return AttentionMaps(content, position, mixed, gate)
        # softmax(a + b) from softmax(a) and softmax(b): their normalised product.
        log_mixed = content.clamp_min(1e-38).log() + position.clamp_min(1e-38).log()
        return AttentionMaps(content, position, log_mixed.softmax(dim=-1), None)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key = self.qk(x).chunk(2, dim=-1)
        heads = self.num_heads
        return split_heads(query, heads), split_heads(key, heads), split_heads(self.v(x), heads)

    def _dense(self, x: Tensor, grid: tuple[int, int], positions: Tensor | None) -> Tensor:
        value = split_heads(self.v(x), self.num_heads)
        mixed = self.attention_maps(x, grid, positions).mixed
        return self.attn_drop(mixed.to(value.dtype)) @ value

    def _position_query_key(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Three channels per token whose dot product is the positional logit.

        Terms that depend on the query alone cancel in the softmax, which leaves
        (a - 2 c x_q) x_k + (b - 2 c y_q) y_k + c (x_k^2 + y_k^2).
        """
        weight = at_least_single(self.pos_proj.weight)
        bias = 0.0 * self.pos_proj.bias
        a, b, c = (column.view(-1, 1) for column in (weight + bias.view(-1, 1)).unbind(1))
        # Centred coordinates keep the squares small; the softmax does not see the shift.
        positions = positions.to(weight.dtype)
        centred = positions - positions.mean(dim=1, keepdim=True)
        x, y = centred.unsqueeze(1).unbind(-1)  # (B, 1, N)
        query = torch.stack([a - 2 * c * x, b - 2 * c * y, c.expand_as(a - x)], dim=-1)
        key = torch.stack([x, y, x**2 + y**2], dim=-1).expand(-1, self.num_heads, -1, -1)
        return query, key  # (B, H, N, 3)

    def _subset_attention(self, value: Tensor, positions: Tensor) -> Tensor:
        with torch.autocast(value.device.type, enabled=False):
            query, key = self._position_query_key(positions)
            batch = value.shape[0]
            query, key = query.expand(batch, -1, -1, -1), key.expand(batch, -1, -1, -1)
            return content_attention(query, key, at_least_single(value), scale=1.0)

    def _ungated(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        grid: tuple[int, int],
        positions: Tensor | None,
    ) -> Tensor:
        """Softmax over the summed logits: three more channels in query and key."""
        if positions is None:
            positions = grid_positions(grid, value.device)
        with torch.autocast(value.device.type, enabled=False):
            pos_query, pos_key = self._position_query_key(positions)
            batch = value.shape[0]
            scaled = at_least_single(query) * query.shape[-1] ** -0.5
            query = torch.cat([scaled, pos_query.expand(batch, -1, -1, -1)], dim=-1)
            key = torch.cat([at_least_single(key), pos_key.expand(batch, -1, -1, -1)], dim=-1)
            out = content_attention(query, key, at_least_single(value), scale=1.0)
        return out.to(value.dtype)


def at_least_single(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def axis_logits(
    linear: Float[Tensor, " heads"], square: Float[Tensor, " heads"], size: int
) -> Float[Tensor, "heads size size"]:
    """Linear * delta + square * delta^2 for each pair of positions along one axis.

    delta = key - query, in patches.
    """
    index = torch.arange(size, device=linear.device, dtype=linear.dtype)
    delta = index - index.view(-1, 1)
    return linear.view(-1, 1, 1) * delta + square.view(-1, 1, 1) * delta.square()


def separable_attention(
    factors: PositionFactors, value: Float[Tensor, "batch heads tokens head_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """(P_row kron P_column) @ value, by one contraction per axis of the grid."""
    row, column = (factor.to(value.dtype) for factor in factors)
    batch, heads, tokens, head_dim = value.shape
    height, width = row.shape[-1], column.shape[-1]
    rows = row @ value.reshape(batch, heads, height, width * head_dim)
    out = column.unsqueeze(1) @ rows.view(batch, heads, height, width, head_dim)
    return out.view(batch, heads, tokens, head_dim)


def grid_positions(
    grid: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "1 tokens 2"]:
    """(x, y) of each patch of a grid in row-major order."""
    height, width = grid
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], dim=-1).unsqueeze(0)
