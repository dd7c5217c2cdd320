"""What a ConViT is built from, checked when it is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST = {
    "patch_size": 1, "in_chans": 1, "num_classes": 0, "embed_dim": 1, "depth": 1, "num_heads": 1,
}  # fmt: skip


@dataclass(frozen=True)
class ConViTConfig:
    """Shape and regularisation of a ConViT. The defaults are those of ConViT-S.

    Attributes:
        img_size: side in pixels, or (height, width), that the position embeddings are made for;
            the model takes any other size that the patch divides.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        num_classes: outputs of the classifier; 0 leaves it out, and the model gives features.
        embed_dim: channels of a token, over all heads.
        depth: layers.
        num_heads: attention heads; a square where `local_init` is on.
        num_gpsa_layers: how many of the first layers are GPSA; 0 is the paper's DeiT.
        locality_strength: inverse squared width of the positional attention at init.
        mlp_ratio: hidden width of the MLPs over embed_dim.
        qkv_bias: bias in the query, key and value projections.
        drop_rate: dropout before the classifier and after each projection.
        attn_drop_rate: dropout on attention maps.
        drop_path_rate: stochastic depth of the last layer, growing linearly from 0.
        local_init: start the GPSA layers as convolutions (the paper's convolutional init).
        use_gating: gate each head between content and position (GPSA), or sum their logits.
        init_std: standard deviation of linear layers at init; 0.02 as released. Networks narrower
            than the published ones want more: signals shrink with the root of the width.
        pos_embed_std: standard deviation of the position embeddings at init; 0.02 as released.
            A patch embedding has about 0.6, so that a short run tells what is there and hardly
            where; 3 for things that lie in the same place in every image.
        global_pool: "token" reads the class token, "avg" the mean of the patch tokens.
        use_pos_embed: add a learned position embedding to each patch, as released. Without it
            the GPSA layers alone know where a patch is (the official `use_pos_embed=False`).

    Raises:
        ValueError: values that do not fit together, with the way out.
    """

    img_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 432
    depth: int = 12
    num_heads: int = 9
    num_gpsa_layers: int = 10
    locality_strength: float = 1.0
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    local_init: bool = True
    use_gating: bool = True
    global_pool: str = "token"
    init_std: float = 0.02
    pos_embed_std: float = 0.02
    use_pos_embed: bool = True

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        self.grid_size(*self.image_shape)
        self._check_heads()
        if not 0 <= self.num_gpsa_layers <= self.depth:
            raise ValueError(
                f"num_gpsa_layers={self.num_gpsa_layers} must lie between 0 and depth={self.depth}"
            )
        if self.global_pool not in ("token", "avg"):
            raise ValueError(f"global_pool={self.global_pool!r} must be 'token' or 'avg'")
        if self.num_gpsa_layers == self.depth and self.global_pool == "token":
            raise ValueError(
                f"num_gpsa_layers={self.num_gpsa_layers} equals depth, so the class token, which "
                f"joins after the last GPSA layer, would attend to nothing; use at most "
                f"{self.depth - 1}, or global_pool='avg'"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if isinstance(self.img_size, int):
            return self.img_size, self.img_size
        height, width = self.img_size
        return height, width

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
            ValueError: a side is not a multiple of the patch size.
        """
        for name, side in (("height", height), ("width", width)):
            if side < self.patch_size or side % self.patch_size:
                below = max(side // self.patch_size, 1) * self.patch_size
                raise ValueError(
                    f"image {name} {side} is not a multiple of patch_size={self.patch_size}; use "
                    f"{below} or {below + self.patch_size}, or another patch_size"
                )
        return height // self.patch_size, width // self.patch_size

    def _check_heads(self) -> None:
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not divisible by num_heads={self.num_heads}; "
                f"use {self.embed_dim // self.num_heads * self.num_heads or self.num_heads}"
            )
        root = math.isqrt(self.num_heads)
        if self.num_gpsa_layers and self.local_init and root**2 != self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a square, and local_init places the heads on "
                f"a square kernel; use {root**2} or {(root + 1) ** 2} heads, or local_init=False"
            )
