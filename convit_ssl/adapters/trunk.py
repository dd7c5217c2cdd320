"""VISSL trunks: ConViT (``convit_ssl``) and any other network (``convit_ssl_other``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vissl.models.trunks import register_model_trunk

from convit_ssl.methods import get_method
from convit_ssl.models import ConViT, create_config
from convit_ssl.models.convit import Intermediates
from convit_ssl.models.gpsa import GPSA
from convit_ssl.models.trunks import OtherTrunk, TrunkConfig

_NOT_FIELDS = (
    "VARIANT", "FREEZE_PATCH_EMBED", "FREEZE_POSITION", "GATE_START", "IMPULSES",
    "GRAD_CHECKPOINTING",
)  # fmt: skip


def trunk_config(options: Mapping[str, Any]) -> Any:
    """The `ConViTConfig` that ``MODEL.TRUNK.CONVIT_SSL`` describes.

    VARIANT names the size; every other key is a field of `ConViTConfig` in upper case, and None
    keeps the variant's value. The trunk has no classifier: VISSL's heads follow it.

    Raises:
        ValueError: an unknown variant or field, or values that do not fit together.
    """
    overrides = {
        key.lower(): tuple(value) if isinstance(value, list) else value
        for key, value in options.items()
        if key not in _NOT_FIELDS and value is not None
    }
    return create_config(options.get("VARIANT", "convit_small"), **{**overrides, "num_classes": 0})


@register_model_trunk("convit_ssl")
class ConViTSSLTrunk(ConViT):
    """A ConViT that returns the features VISSL asks for. State-dict keys are ConViT's own."""

    def __init__(self, model_config: Any, model_name: str) -> None:
        options = model_config.TRUNK.CONVIT_SSL
        super().__init__(trunk_config(options))
        self.set_grad_checkpointing(bool(options.get("GRAD_CHECKPOINTING", False)))
        if options.get("FREEZE_PATCH_EMBED", False):
            self.patch_embed.requires_grad_(False)
        if options.get("FREEZE_POSITION", False):
            freeze_position(self)
        for module in self.modules():
            if isinstance(module, GPSA):
                if options.get("GATE_START") is not None:
                    module.set_gate(options["GATE_START"])
                if options.get("IMPULSES", False):
                    module.place_impulses()
        self._all_tokens = head_takes_tokens(model_config)
        self.gives_tokens = False  # in evaluation as well, to a method that asks its teacher
        if _method_has(model_config, "hides_patches"):
            self.mask_token = nn.Parameter(torch.zeros(1, 1, self.config.embed_dim))

    def forward(  # type: ignore[override]
        self, x: Tensor, out_feat_keys: Sequence[str] | None = None
    ) -> list[Tensor]:
        """Features by VISSL's names.

        Args:
            x: images (B, C, H, W), of any size that the patch divides.
            out_feat_keys: lastCLS, the normalised class token of the last block (the default);
                blkCLS<i>, that of block i; concatCLS<n>, of the last n blocks joined;
                meanPATCH, the mean normalised patch token; blkPATCH<i>, of block i; lastMAP and
                blkMAP<i>, patch tokens as maps (B, D, h, w). Names joined by + are concatenated.

        Raises:
            ValueError: an unknown name, or the class token of a GPSA block.
        """
        if not out_feat_keys:
            tokens = self.forward_features(x)
            feature = self.forward_head(tokens, pre_logits=True)
            if self.gives_tokens or (self._all_tokens and self.training):
                whole = torch.cat((feature.unsqueeze(1), tokens[:, 1:]), dim=1)
                # Small crops go to the head with the large ones, which looks at their first token.
                height, width = self.grid_size(*self.config.image_shape)
                missing = 1 + height * width - whole.shape[1]
                return [nn.functional.pad(whole, (0, 0, 0, missing)) if missing > 0 else whole]
            return [feature]
        tokens, inside = self.forward_intermediates(x)
        grid = self.grid_size(*x.shape[-2:])
        return [self._named(key, tokens, inside, grid) for key in out_feat_keys]

    def _named(
        self, name: str, tokens: Tensor, inside: Intermediates, grid: tuple[int, int]
    ) -> Tensor:
        if "+" in name:
            parts = [self._named(part, tokens, inside, grid) for part in name.split("+")]
            return torch.cat(parts, dim=-1)
        depth = self.config.depth
        if name == "lastCLS":
            return tokens[:, 0]
        if name == "meanPATCH":
            return tokens[:, 1:].mean(dim=1)
        if name == "lastMAP":
            return as_map(tokens[:, 1:], grid)
        match = re.fullmatch(r"(blkCLS|blkPATCH|blkMAP|concatCLS)(\d+)", name)
        if match is None or int(match[2]) >= depth + (match[1] == "concatCLS"):
            raise ValueError(
                f"unknown feature {name!r}: use lastCLS, meanPATCH, lastMAP, concatCLS<n>, or "
                f"blkCLS<i>, blkPATCH<i>, blkMAP<i> with i below {depth}"
            )
        kind, number = match[1], int(match[2])
        if kind == "concatCLS":
            last = range(depth - number, depth)
            return torch.cat([self._class_token(inside, block) for block in last], dim=-1)
        if kind == "blkCLS":
            return self._class_token(inside, number)
        patches = self.norm(inside.tokens[number])[:, -grid[0] * grid[1] :]
        return patches.mean(dim=1) if kind == "blkPATCH" else as_map(patches, grid)

    def _class_token(self, inside: Intermediates, block: int) -> Tensor:
        if block < self.config.num_gpsa_layers:
            raise ValueError(
                f"block {block} is a GPSA block, which has no class token; "
                f"the first with one is {self.config.num_gpsa_layers}"
            )
        normed: Tensor = self.norm(inside.tokens[block])
        return normed[:, 0]


def head_takes_tokens(model_config: Any) -> bool:
    """Whether the head belongs to a method that also learns from patch tokens."""
    return _method_has(model_config, "all_tokens")


def _method_has(model_config: Any, trait: str) -> bool:
    heads = model_config.get("HEAD", {}).get("PARAMS") or []
    options: Any = heads[0][1] if heads and len(heads[0]) > 1 else {}
    method: Any = options.get("method")
    return bool(method) and bool(getattr(get_method(method["name"]), trait))


@register_model_trunk("convit_ssl_other")
class OtherSSLTrunk(OtherTrunk):
    """A network of timm or a plugin with a single feature: its output vector."""

    def __init__(self, model_config: Any, model_name: str) -> None:
        options = dict(model_config.TRUNK.CONVIT_SSL_OTHER)
        checkpointing = options.pop("GRAD_CHECKPOINTING", False)
        frozen = options.pop("FREEZE_PATCH_EMBED", False)
        super().__init__(other_config(options))
        self.set_grad_checkpointing(bool(checkpointing))
        if frozen and (projection := self.patch_projection()) is not None:
            projection.requires_grad_(False)

    def forward(  # type: ignore[override]
        self, x: Tensor, out_feat_keys: Sequence[str] | None = None
    ) -> list[Tensor]:
        """The vector of each image, under any name."""
        feature = super().forward(x)
        return [feature for _ in out_feat_keys or ("pooled",)]


def other_config(options: Mapping[str, Any]) -> TrunkConfig:
    """The `TrunkConfig` that ``MODEL.TRUNK.CONVIT_SSL_OTHER`` describes, in upper case."""
    return TrunkConfig(**{key.lower(): value for key, value in options.items()})


def as_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, N, D) as a feature map (B, D, height, width)."""
    return patches.transpose(1, 2).unflatten(2, grid)


def freeze_position(trunk: ConViT) -> None:
    """Keep the positional attention as initialised (the ablation of the paper's Table 3)."""
    for module in trunk.modules():
        if isinstance(module, GPSA):
            module.pos_proj.requires_grad_(False)
