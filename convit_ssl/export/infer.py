"""The configuration of a ConViT, read from the shapes of its tensors."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.models import VARIANTS, ConViTConfig

# What makes two configurations the same variant; sizes of images, patches and outputs do not.
_IDENTITY = ("embed_dim", "depth", "num_heads", "num_gpsa_layers", "mlp_ratio")


def config_from_tensors(
    tensors: dict[str, Tensor],
    path: str,
    num_heads: int | None = None,
    img_size: int | tuple[int, int] | None = None,
) -> ConViTConfig:
    """Read the configuration from official keys and shapes.

    Args:
        tensors: a trunk with official keys.
        path: for messages.
        num_heads: of a plain ViT, whose tensors do not tell; by default that of the named
            variant of the same width, or 64 channels per head.
        img_size: what the position embeddings were made for, where they do not fill a square.

    Raises:
        UserError: tensors that belong to no ConViT.
    """
    try:
        fields = _fields(tensors, num_heads, img_size)
        config = ConViTConfig(**fields)
    except KeyError as error:
        raise UserError(f"{path} is no complete ConViT: {error.args[0]} is missing") from error
    except ValueError as error:
        raise UserError(f"{path} is no ConViT that this project can build: {error}") from error
    # How weights were drawn is nowhere in them; a named variant says how its own are.
    known = VARIANTS.get(variant_of(config) or "")
    if known is None:
        return config
    names = {field.name for field in dataclasses.fields(ConViTConfig)} - set(fields)
    return dataclasses.replace(config, **{name: getattr(known, name) for name in names})


def _fields(
    tensors: dict[str, Tensor], num_heads: int | None, img_size: int | tuple[int, int] | None
) -> dict[str, Any]:
    patches = tensors["patch_embed.proj.weight"]
    if patches.dim() != 4 or patches.shape[2] != patches.shape[3]:
        raise ValueError(f"patch_embed.proj.weight has shape {tuple(patches.shape)}")
    embed_dim, in_chans, patch_size, _ = patches.shape
    depth = 1 + max(_block_indices(tensors, "norm1.weight"), default=-1)
    if depth == 0:
        raise KeyError("blocks.0.norm1.weight")
    gpsa = sorted(_block_indices(tensors, "attn.qk.weight"))
    if gpsa != list(range(len(gpsa))):
        raise ValueError(f"blocks {gpsa} are GPSA, and they should be the first ones")
    heads = num_heads or _num_heads(tensors, embed_dim, depth)
    known_square = math.isqrt(heads) ** 2 == heads
    first_qkv = "blocks.0.attn.qk.bias" if gpsa else "blocks.0.attn.qkv.bias"
    head = tensors.get("head.weight")
    return {
        "img_size": img_size or _img_size(tensors["pos_embed"], patch_size),
        "patch_size": patch_size,
        "in_chans": in_chans,
        "num_classes": 0 if head is None else head.shape[0],
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": heads,
        "num_gpsa_layers": len(gpsa),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        "qkv_bias": first_qkv in tensors,
        "local_init": known_square,
        "use_gating": not gpsa or "blocks.0.attn.gating_param" in tensors,
        "global_pool": "avg" if len(gpsa) == depth else "token",
    }


def variant_of(config: ConViTConfig) -> str | None:
    """The named variant of the same architecture, or None."""
    for name, known in VARIANTS.items():
        if all(getattr(config, key) == getattr(known, key) for key in _IDENTITY):
            return name
    return None


def config_from_entry(fields: dict[str, Any], path: str) -> ConViTConfig:
    """The configuration that one of our own files carries.

    Raises:
        UserError: it was written by a version with other options.
    """
    known = {field.name for field in dataclasses.fields(ConViTConfig)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UserError(
            f"{path} was written with model options that this version does not know: "
            f"{', '.join(unknown)}; update convit_ssl"
        )
    if isinstance(fields.get("img_size"), list):
        fields = {**fields, "img_size": tuple(fields["img_size"])}
    try:
        return ConViTConfig(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} carries a model configuration that is wrong: {error}") from error


def _num_heads(tensors: dict[str, Tensor], embed_dim: int, depth: int) -> int:
    positions = tensors.get("blocks.0.attn.pos_proj.weight")
    if positions is not None:
        return positions.shape[0]
    # Facebook's DeiT and DINO have qkv biases and 64 channels per head; ours have neither.
    if "blocks.0.attn.qkv.bias" not in tensors:
        for known in VARIANTS.values():
            same = (known.embed_dim, known.depth) == (embed_dim, depth)
            if same and known.num_gpsa_layers == 0:
                return known.num_heads
    return max(1, embed_dim // 64)


def _img_size(pos_embed: Tensor, patch_size: int) -> int:
    tokens = pos_embed.shape[1]
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise ValueError(
            f"its {tokens} position embeddings fill no square; say what they were made for "
            "with img_size (height, width)"
        )
    return side * patch_size


def _block_indices(tensors: dict[str, Tensor], suffix: str) -> set[int]:
    pattern = re.compile(rf"^blocks\.(\d+)\.{re.escape(suffix)}$")
    return {int(match[1]) for key in tensors if (match := pattern.match(key))}
