"""A transformer block of ConViT: attention and a perceptron, each beside a residual path."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.models.attention import DropPath, Mlp, SelfAttention
from convit_ssl.models.config import ConViTConfig
from convit_ssl.models.folding import Folded
from convit_ssl.models.gpsa import GPSA, AttentionMaps

__all__ = ["Block"]


class Block(nn.Module):
    """A pre-norm transformer block, with GPSA or plain self-attention."""

    def __init__(self, config: ConViTConfig, use_gpsa: bool, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.use_gpsa = use_gpsa
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn: nn.Module
        if use_gpsa:
            self.attn = GPSA(
                dim,
                config.num_heads,
                config.qkv_bias,
                config.attn_drop_rate,
                config.drop_rate,
                config.locality_strength,
                config.use_gating,
            )
        else:
            self.attn = SelfAttention(
                dim, config.num_heads, config.qkv_bias, config.attn_drop_rate, config.drop_rate
            )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.drop_rate)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Tensor | None = None,
        folded: Folded | None = None,
        paths: Tensor | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """One layer. `grid`, `positions` and `folded` as in `GPSA.forward`.

        `paths` (2, batch, 1, 1) are the masks of drop-path for both branches; None draws them.
        """
        normed = self.norm1(x)
        if self.use_gpsa:
            x = x + self._drop(self.attn(normed, grid, positions, folded), paths, 0)
        else:
            x = x + self._drop(self.attn(normed), paths, 0)
        return x + self._drop(self.mlp(self.norm2(x)), paths, 1)

    def _drop(self, branch: Tensor, paths: Tensor | None, number: int) -> Tensor:
        out: Tensor
        out = self.drop_path(branch) if paths is None else self.drop_path(branch, paths[number])
        return out

    def attention_maps(
        self,
        x: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
        positions: Tensor | None = None,
    ) -> AttentionMaps:
        """Dense attention for the block's input, for analysis."""
        normed = self.norm1(x)
        if isinstance(self.attn, GPSA):
            return self.attn.attention_maps(normed, grid, positions)
        assert isinstance(self.attn, SelfAttention)
        content = self.attn.attention_map(normed)
        return AttentionMaps(content, None, content, None)
