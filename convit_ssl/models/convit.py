"""ConViT (arXiv:2103.10697): GPSA layers, then plain self-attention that a class token joins.

State-dict keys are those of the official release and of timm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from convit_ssl.models.attention import DropPath
from convit_ssl.models.autocast import at_least_single
from convit_ssl.models.block import Block
from convit_ssl.models.config import ConViTConfig
from convit_ssl.models.folding import Folded, FoldedCache, fold
from convit_ssl.models.gpsa import GPSA, AttentionMaps
from convit_ssl.models.patch_embed import PatchEmbed
from convit_ssl.models.position import grid_positions

__all__ = ["Block", "ConViT", "ConViTConfig", "Intermediates", "PatchEmbed"]


@dataclass
class Intermediates:
    """What happened inside one forward pass; one entry per block.

    Attributes:
        tokens: output of each block, (B, N, D) in GPSA blocks, (B, 1 + N, D) with the class
            token from block `num_gpsa_layers` on. Not normalised.
        gates: sigmoid(gating_param) (H,) of GPSA blocks, None elsewhere.
        attention: the dense maps where they were asked for, None elsewhere.
    """

    tokens: list[Tensor] = field(default_factory=list)
    gates: list[Tensor | None] = field(default_factory=list)
    attention: list[AttentionMaps | None] = field(default_factory=list)


class ConViT(nn.Module):
    """The network. Takes images of any size that the patch divides.

    Args:
        config: sizes and options; see `ConViTConfig`, and `create_model` for the named ones.

    Attributes:
        provenance: where the weights came from; of networks that `export` loaded alone.
    """

    provenance: dict[str, Any]

    def __init__(self, config: ConViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.embed_dim = self.num_features = self.head_hidden_size = config.embed_dim
        self.grad_checkpointing = False
        # Of the blocks, for the next batch, where it is a part of a larger one; None draws them.
        self.path_masks: list[Tensor | None] | None = None
        # Patches (rows, patches) that training hides behind `mask_token`, in crops of their number.
        self.hidden_patches: Tensor | None = None
        self.mask_token: nn.Parameter | None = None
        self.patch_embed = PatchEmbed(config.patch_size, config.in_chans, config.embed_dim)
        height, width = self.grid_size(*config.image_shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed: nn.Parameter | None = None
        if config.use_pos_embed:
            self.pos_embed = nn.Parameter(torch.zeros(1, height * width, config.embed_dim))
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(
            Block(
                config,
                use_gpsa=i < config.num_gpsa_layers,
                drop_path=config.drop_path_rate * i / last,
            )
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = self._classifier(config.num_classes)
        self._folded_cache = FoldedCache()
        if not self.cls_token.is_meta:  # whose values do not exist
            self.init_weights()

    def init_weights(self) -> None:
        """Truncated normals everywhere, then the convolutional init over them."""
        # The released draw, then its scale: trunc_normal_ cuts at 2, whatever the deviation.
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            with torch.no_grad():
                self.pos_embed.mul_(self.config.pos_embed_std / 0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=self.config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.config.local_init:
            for module in self.modules():
                if isinstance(module, GPSA):
                    module.local_init()

    def forward(
        self, x: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch outputs"]:
        """Logits, or features of width embed_dim when num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def forward_features(
        self,
        x: Float[Tensor, "batch chans height width"],
        keep: Int[Tensor, "batch kept"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Normalised tokens of the last block, the class token first.

        Args:
            x: images.
            keep: row-major indices of the patches that are used, for masked training; all by
                default.

        Raises:
            ValueError: a side of the images is not a multiple of the patch size.
        """
        tokens, grid, positions = self._embed(x, keep)
        folded = self._fold(grid, len(x), positions)
        paths = self.path_masks or [None] * len(self.blocks)
        for index, block in enumerate(self.blocks):
            if index == self.config.num_gpsa_layers:
                tokens = self._prepend_class_token(tokens)
            if self.grad_checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(
                    block,
                    tokens,
                    grid,
                    positions,
                    folded[index],
                    paths[index],
                    use_reentrant=False,
                )
            else:
                tokens = block(tokens, grid, positions, folded[index], paths[index])
        if self.config.num_gpsa_layers == self.config.depth:
            tokens = self._prepend_class_token(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def draw_path_masks(self, batch: int, device: torch.device) -> list[Tensor | None]:
        """What drop-path would draw for a batch in training, as `path_masks` takes it.

        Args:
            batch: images.
            device: of the images; its random state is used as a forward pass would.

        Returns:
            For each block the masks of both branches, (2, batch, 1, 1), or None without drop-path.
        """
        masks: list[Tensor | None] = []
        for block in self.blocks:
            path = block.drop_path
            assert isinstance(path, (DropPath, nn.Identity))
            if isinstance(path, nn.Identity) or path.drop_prob == 0.0:
                masks.append(None)
                continue
            empty = (torch.empty((batch, 1, 1), device=device) for _ in range(2))
            masks.append(torch.stack([path.draw(mask) for mask in empty]))
        return masks

    def forward_head(
        self, tokens: Float[Tensor, "batch tokens dim"], pre_logits: bool = False
    ) -> Float[Tensor, "batch outputs"]:
        """Pool the tokens of `forward_features`, and classify unless `pre_logits`."""
        pool_mean = self.config.global_pool == "avg"
        pooled = tokens[:, 1:].mean(dim=1) if pool_mean else tokens[:, 0]
        pooled = self.head_drop(pooled)
        out: Tensor = pooled if pre_logits else self.head(pooled)
        return out

    def forward_intermediates(
        self, x: Float[Tensor, "batch chans height width"], return_attention: bool = False
    ) -> tuple[Float[Tensor, "batch tokens dim"], Intermediates]:
        """As `forward_features`, with what each block made; dense attention when asked for."""
        tokens, grid, positions = self._embed(x, None)
        folded = self._fold(grid, len(x), positions)
        inside = Intermediates()
        for index, block in enumerate(self.blocks):
            if index == self.config.num_gpsa_layers:
                tokens = self._prepend_class_token(tokens)
            assert isinstance(block, Block)
            maps = block.attention_maps(tokens, grid, positions) if return_attention else None
            tokens = block(tokens, grid, positions, folded[index])
            inside.tokens.append(tokens)
            gpsa = block.attn if isinstance(block.attn, GPSA) else None
            inside.gates.append(gpsa.gate if gpsa is not None and gpsa.use_gating else None)
            inside.attention.append(maps)
        if self.config.num_gpsa_layers == self.config.depth:
            tokens = self._prepend_class_token(tokens)
        return self.norm(tokens), inside

    def get_intermediate_layers(
        self,
        x: Float[Tensor, "batch chans height width"],
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> list[Tensor] | list[tuple[Tensor, Tensor]]:
        """Outputs of the last `n` blocks, by the interface of DINO and DINOv2.

        Args:
            x: images.
            n: how many blocks, counted from the last; or the numbers of some, from 0.
            reshape: patch tokens as maps (B, D, height, width).
            return_class_token: also the class token of each layer.
            norm: apply the final LayerNorm.

        Returns:
            With neither `reshape` nor `return_class_token`, all tokens of each layer as in
            DINO, (B, 1 + N, D), or (B, N, D) in GPSA blocks; with `reshape`, the maps; with
            `return_class_token`, pairs of patches and class token.

        Raises:
            ValueError: a class token is asked of a GPSA block, which has none.
        """
        depth, gated = self.config.depth, self.config.num_gpsa_layers
        chosen = (
            range(max(depth - n, 0), depth) if isinstance(n, int) else [range(depth)[i] for i in n]
        )
        if return_class_token and min(chosen, default=depth) < gated:
            raise ValueError(
                f"block {min(chosen)} is a GPSA block without a class token; "
                f"n is at most {depth - gated} here"
            )
        _, inside = self.forward_intermediates(x)
        grid = self.grid_size(*x.shape[-2:])
        layers: list[Any] = []
        for tokens in (inside.tokens[index] for index in chosen):
            tokens = self.norm(tokens) if norm else tokens
            has_class_token = tokens.shape[1] > grid[0] * grid[1]
            patches = tokens[:, 1:] if has_class_token else tokens
            if reshape:
                patches = patches.transpose(1, 2).unflatten(2, grid).contiguous()
            if return_class_token:
                layers.append((patches, tokens[:, 0]))
            else:
                layers.append(patches if reshape else tokens)
        return layers

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image; see `ConViTConfig.grid_size`."""
        return self.config.grid_size(height, width)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of storing their activations."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The classifier, an Identity when num_classes is 0."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0 classes leaves features."""
        self.num_classes = num_classes
        self.head = self._classifier(num_classes).to(self.cls_token)

    def _classifier(self, num_classes: int) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        return nn.Linear(self.config.embed_dim, num_classes)

    def train(self, mode: bool = True) -> ConViT:
        """Set the mode; empties the cache of folded weights either way."""
        self._folded_cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConViT:
        self._folded_cache.clear()
        moved: ConViT = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def _fold(
        self, grid: tuple[int, int], batch: int, positions: Tensor | None
    ) -> list[Folded | None]:
        """What `fold` makes for each block on the separable path, None for the others."""
        folded: list[Folded | None] = [None] * len(self.blocks)
        layers = {
            index: block.attn
            for index, block in enumerate(self.blocks)
            if isinstance(block.attn, GPSA) and block.attn.path(positions) == "separable"
        }
        if layers:
            gpsa = list(layers.values())
            made = fold(gpsa, grid, batch, gpsa[0].compute_dtype(), self._cache_if_safe())
            for index, of_block in zip(layers, made, strict=True):
                folded[index] = of_block
        return folded

    def _cache_if_safe(self) -> FoldedCache | None:
        if torch.compiler.is_compiling():
            return None
        if torch.is_grad_enabled():  # an optimiser may follow
            self._folded_cache.clear()
        return (
            self._folded_cache if torch.is_inference_mode_enabled() and not self.training else None
        )

    def _embed(
        self, x: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        grid = self.grid_size(*x.shape[-2:])
        # In this order the sum is laid out as the embedding is, token by token. As the convolution
        # leaves them, channel by channel, every LayerNorm would copy its tokens first.
        positions = self._position_embedding(grid)
        patches = self.patch_embed(x)
        if self.hidden_patches is not None and self.training:
            patches = self._hide(patches)
        tokens = patches.contiguous() if positions is None else positions + patches
        if keep is None:
            return tokens, grid, None
        index = keep.unsqueeze(-1)
        tokens = tokens.gather(1, index.expand(-1, -1, tokens.shape[-1]))
        all_positions = grid_positions(grid, x.device).expand(x.shape[0], -1, -1)
        return tokens, grid, all_positions.gather(1, index.expand(-1, -1, 2))

    def _hide(self, patches: Tensor) -> Tensor:
        """A learned token in place of each hidden patch; it, too, is told where it is."""
        assert self.mask_token is not None and self.hidden_patches is not None
        hidden, rows = self.hidden_patches, len(patches)
        if patches.shape[1] != hidden.shape[1]:  # small crops
            return patches
        if rows > len(hidden):  # small crops of the size of large ones, which come first
            hidden = F.pad(hidden, (0, 0, 0, rows - len(hidden)))
        return torch.where(hidden.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor | None:
        """Resampled to the exact grid: a rounded scale factor would miss a row."""
        own = self.grid_size(*self.config.image_shape)
        if self.pos_embed is None or grid == own:
            return self.pos_embed
        as_map = at_least_single(self.pos_embed).transpose(1, 2).unflatten(2, own)
        resampled = F.interpolate(as_map, size=grid, mode="bicubic", align_corners=False)
        return resampled.flatten(2).transpose(1, 2).to(self.pos_embed.dtype).contiguous()

    def _prepend_class_token(self, tokens: Tensor) -> Tensor:
        cls_token = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls_token, tokens], dim=1)
