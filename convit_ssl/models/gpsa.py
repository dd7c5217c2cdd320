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
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.models.attention import (
    Mixture,
    content_attention,
    content_logits,
    content_map,
    explicit_attention,
    merge_heads,
    split_heads,
)
from convit_ssl.models.autocast import (
    at_least_single,
    has_autocast,
    is_widened,
    without_autocast,
)
from convit_ssl.models.folding import Folded, fold, gates
from convit_ssl.models.position import (
    AddSeparableAttention,
    PositionFactors,
    add_separable_attention,
    grid_positions,
    kronecker_product,
    padded_attention,
    position_factors,
    position_query_key,
)
from convit_ssl.models.transforms import in_forward_mode

__all__ = ["GPSA", "AttentionMaps", "PositionFactors"]

Path = Literal["separable", "subset", "ungated", "dense"]

IMPULSE_STRENGTH = 5.0


class AttentionMaps(NamedTuple):
    """Dense attention of one layer. Plain layers have no positional part and no gate."""

    content: Float[Tensor, "batch heads tokens tokens"]
    position: Float[Tensor, "heads tokens tokens"] | None
    mixed: Float[Tensor, "batch heads tokens tokens"]
    gate: Float[Tensor, " heads"] | None


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
        self.qkv_bias = qkv_bias
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
        with torch.no_grad():
            self.v.weight.copy_(torch.eye(self.dim))
        self.place_heads()

    def place_heads(self) -> None:
        """Give each head one offset of a kernel, as `local_init` does, and leave the values alone.

        The kernel is the square of the paper, or the rectangle nearest to one where the head
        count is not a square: 2 x 3 for 6 heads, 3 x 4 for 12.
        """
        rows = next(r for r in range(math.isqrt(self.num_heads), 0, -1) if self.num_heads % r == 0)
        columns = self.num_heads // rows
        across = torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2
        down = torch.arange(rows, dtype=torch.float32) - (rows - 1) / 2
        with torch.no_grad():
            self.pos_proj.weight[:, 0] = 2 * across.repeat_interleave(rows)
            self.pos_proj.weight[:, 1] = 2 * down.repeat(columns)
            self.pos_proj.weight[:, 2] = -1.0
            self.pos_proj.weight.mul_(self.locality_strength)

    def place_impulses(self, strength: float = IMPULSE_STRENGTH) -> None:
        """Let each head attend at one patch, a random one of the nine around each token.

        Random impulse filters (arXiv:2505.19985) as positional attention: where `place_heads`
        gives every layer the same kernel, here layers and heads differ. Values stay as they are.

        Args:
            strength: inverse squared width of the attention, in patches ** -2; at 5 the patch
                gets 0.97 of it.
        """
        with torch.no_grad():
            offsets = torch.randint(-1, 2, (self.num_heads, 2), device=self.pos_proj.weight.device)
            self.pos_proj.weight[:, :2] = 2.0 * strength * offsets
            self.pos_proj.weight[:, 2] = -strength

    def set_gate(self, share: float) -> None:
        """Give the position this share of every head's attention.

        Args:
            share: between 0 (content alone) and 1 (position alone), both excluded.

        Raises:
            ValueError: a share outside these limits, or a layer without gates.
        """
        if not self.use_gating or not 0 < share < 1:
            raise ValueError(
                f"the gates' share of position is {share}; it must lie between 0 and 1, in a layer "
                "with gates (use_gating=True)"
            )
        with torch.no_grad():
            self.gating_param.fill_(math.log(share) - math.log1p(-share))

    @property
    def gate(self) -> Float[Tensor, " heads"]:
        """sigmoid(gating_param): the share of positional attention in each head."""
        return gates(self.gating_param)[1].to(self.gating_param.dtype)

    def path(self, positions: Tensor | None = None) -> Path:
        """The way that `forward` computes the attention; the only place where it is chosen.

        All are exact. "separable" is the fast one; the others are for attention dropout, which
        acts on the mixed map, for layers without gates, and for incomplete grids.
        """
        if self.training and self.attn_drop.p > 0:
            return "dense"
        if not self.use_gating:
            return "ungated"
        return "separable" if positions is None else "subset"

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Num[Tensor, "#batch tokens 2"] | None = None,
        folded: Folded | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend over the patches of a grid, or over a subset of them.

        Args:
            x: tokens; all of the grid in row-major order, unless `positions` is given.
            grid: height and width in patches.
            positions: (x, y) of each token in patches, where the grid is incomplete.
            folded: what `fold` made for this layer along with its neighbours.

        Raises:
            ValueError: the number of tokens is not height x width and no positions are given.
        """
        height, width = grid
        if positions is None and x.shape[1] != height * width:
            raise ValueError(
                f"{x.shape[1]} tokens do not fill a grid of {height} x {width} patches; "
                "pass positions=(x, y) per token for a subset"
            )
        path = self.path(positions)
        if path == "separable":
            out = self._separable(x, folded or fold([self], grid, len(x), self.compute_dtype())[0])
        elif path == "dense":
            out = self._dense(x, grid, positions)
        else:
            if positions is None:
                positions = grid_positions(grid, x.device)
            out = self._subset(x, positions) if path == "subset" else self._ungated(x, positions)
        projected: Tensor = self.proj_drop(self.proj(merge_heads(out)))
        return projected

    def compute_dtype(self) -> torch.dtype:
        """The dtype of the products: that of autocast where it acts, else the weights'."""
        device, dtype = self.v.weight.device.type, self.v.weight.dtype
        if has_autocast(device) and torch.is_autocast_enabled(device) and dtype != torch.float64:
            return torch.get_autocast_dtype(device)
        return dtype

    def folded_parameters(self) -> Iterator[Tensor]:
        """Every parameter that `fold` reads."""
        yield from (self.qk.weight, self.v.weight, self.pos_proj.weight, self.gating_param)
        if self.qkv_bias:
            yield from (self.qk.bias, self.v.bias)

    def _separable(self, x: Tensor, folded: Folded) -> Tensor:
        """(1 - g) softmax(Q K^T) V + (g P_row kron P_column) V; see `folding`."""
        (weight, bias), (content_gate, rounded_gate, row, column, by_map) = folded
        query, key, value = (
            split_heads(part, self.num_heads) for part in F.linear(x, weight, bias).chunk(3, dim=-1)
        )
        if by_map:
            position = kronecker_product(row, column)
            mixture = Mixture(content_gate, rounded_gate, position, position.to(value.dtype))
            return explicit_attention(query, key, value, mixture)
        content = content_attention(query, key, value)
        inputs = (content, content_gate, rounded_gate, value, row, column)
        differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        if differentiated and not in_forward_mode():
            again = (query, key) if is_widened(x.device, value.dtype) else (None, None)
            out: Tensor = AddSeparableAttention.apply(*inputs, *again)
            return out
        return add_separable_attention(*inputs)

    def position_factors(self, grid: tuple[int, int]) -> PositionFactors:
        """Row and column softmaxes whose Kronecker product is the positional attention."""
        return position_factors(self._position_weight(), grid)

    def position_map(self, grid: tuple[int, int]) -> Float[Tensor, "heads tokens tokens"]:
        """The dense positional attention, for analysis. Rows are queries."""
        return kronecker_product(*self.position_factors(grid))

    def attention_maps(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Num[Tensor, "#batch tokens 2"] | None = None,
    ) -> AttentionMaps:
        """The dense maps that `forward` never builds. Rows are queries, columns keys."""
        query, key, _ = self._query_key_value(x)
        content = content_map(query, key)
        if positions is None and self.use_gating:
            position = self.position_map(grid)
        else:
            positions = grid_positions(grid, x.device) if positions is None else positions
            pos_query, pos_key = position_query_key(self._position_weight(), positions)
            logits = pos_query @ pos_key.mT
            position = logits.softmax(dim=-1)
        if self.use_gating:
            # In float32: a gate of 0.999 is 1 in half precision, and the content would be lost.
            content_gate, gate = (x.view(-1, 1, 1) for x in gates(self.gating_param))
            mixed = torch.addcmul(position * gate, content, content_gate)
            return AttentionMaps(content, position, mixed, self.gate)
        mixed = (content_logits(query, key) + logits).softmax(dim=-1)
        return AttentionMaps(content, position, mixed, None)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key = self.qk(x).chunk(2, dim=-1)
        heads = self.num_heads
        return split_heads(query, heads), split_heads(key, heads), split_heads(self.v(x), heads)

    def _dense(self, x: Tensor, grid: tuple[int, int], positions: Tensor | None) -> Tensor:
        value = split_heads(self.v(x), self.num_heads)
        mixed = self.attention_maps(x, grid, positions).mixed
        dropped: Tensor = self.attn_drop(mixed.to(value.dtype))
        return dropped @ value

    def _subset(self, x: Tensor, positions: Tensor) -> Tensor:
        """Two softmaxes over the tokens that are there, the positional one of rank three."""
        query, key, value = self._query_key_value(x)
        content = content_attention(query, key, value)
        with without_autocast(x.device):
            pos_query, pos_key = self._position_query_key(positions, len(x))
            position = padded_attention(pos_query, pos_key, at_least_single(value))
            content_gate, gate = (x.view(-1, 1, 1) for x in gates(self.gating_param))
            mixed = torch.addcmul(position * gate, at_least_single(content), content_gate)
        return mixed.to(value.dtype)

    def _ungated(self, x: Tensor, positions: Tensor) -> Tensor:
        """One softmax over the summed logits: three more channels in query and key."""
        query, key, value = self._query_key_value(x)
        with without_autocast(x.device):
            pos_query, pos_key = self._position_query_key(positions, len(x))
            scaled = at_least_single(query) * query.shape[-1] ** -0.5
            out = padded_attention(
                torch.cat([scaled, pos_query], dim=-1),
                torch.cat([at_least_single(key), pos_key], dim=-1),
                at_least_single(value),
            )
        return out.to(value.dtype)

    def _position_query_key(self, positions: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        query, key = position_query_key(self._position_weight(), positions)
        return query.expand(batch, -1, -1, -1), key.expand(batch, -1, -1, -1)

    def _position_weight(self) -> Tensor:
        # The bias cancels in the softmax; see `folding`.
        return self.pos_proj.weight + 0.0 * self.pos_proj.bias.unsqueeze(-1)
