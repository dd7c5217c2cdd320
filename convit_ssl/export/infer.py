"""The configuration of a ConViT, read from the shapes of its tensors."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.models import VARIANTS, ConViTConfig
from convit_ssl.reading import printable

# What makes two configurations the same variant; sizes of images, patches and outputs do not.
_IDENTITY = ("embed_dim", "depth", "num_heads", "num_gpsa_layers", "mlp_ratio")


def config_from_tensors(
    tensors: dict[str, Tensor],
    path: str,
    num_heads: int,
    img_size: tuple[int, int],
) -> ConViTConfig:
    """Read the configuration from official keys and shapes.

    Args:
        tensors: a trunk with official keys.
        path: for messages.
        num_heads: of a plain ViT, whose tensors do not tell.
        img_size: what the position embeddings were made for, (height, width).

    Raises:
        UserError: tensors that belong to no ConViT.
    """
    try:
        fields = _fields(tensors, num_heads, img_size)
        config = ConViTConfig(**fields)
    except KeyError as error:
        raise UserError(f"{path} is not a complete ConViT: {error.args[0]} is missing") from error
    except ValueError as error:
        raise UserError(f"{path} is not a ConViT that this project can build: {error}") from error
    # How weights were drawn is nowhere in them; a named variant says how its own are.
    known = VARIANTS.get(variant_of(config) or "")
    if known is None:
        return config
    names = {field.name for field in dataclasses.fields(ConViTConfig)} - set(fields)
    return dataclasses.replace(config, **{name: getattr(known, name) for name in names})


def _fields(
    tensors: dict[str, Tensor], num_heads: int, img_size: tuple[int, int]
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
    known_square = math.isqrt(num_heads) ** 2 == num_heads
    first_qkv = "blocks.0.attn.qk.bias" if gpsa else "blocks.0.attn.qkv.bias"
    head = tensors.get("head.weight")
    return {
        "img_size": img_size[0] if img_size[0] == img_size[1] else img_size,
        "patch_size": patch_size,
        "in_chans": in_chans,
        "num_classes": 0 if head is None else head.shape[0],
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": num_heads,
        "num_gpsa_layers": len(gpsa),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        "qkv_bias": first_qkv in tensors,
        "local_init": known_square,
        "use_pos_embed": "pos_embed" in tensors,
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
    known = {field.name: field for field in dataclasses.fields(ConViTConfig)}
    unknown = sorted(str(name) for name in set(fields) - set(known))
    if unknown:
        raise UserError(
            f"{path} was written with model options that this version does not know: "
            f"{printable(', '.join(unknown))}; update convit_ssl"
        )
    if isinstance(fields.get("img_size"), list):
        fields = {**fields, "img_size": tuple(fields["img_size"])}
    for name, value in fields.items():
        if not _is_like(value, known[name].default):
            raise UserError(
                f"{path} has an invalid model configuration: {name}={printable(repr(value), 60)}"
            )
    try:
        return ConViTConfig(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has an invalid model configuration: {error}") from error


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the type of an option's default, and finite; sizes may be pairs."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_like(side, 224) for side in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) < 2**31
    if isinstance(default, float):
        return isinstance(value, (int, float)) and abs(value) < 1e9
    return isinstance(value, type(default))


def _block_indices(tensors: dict[str, Tensor], suffix: str) -> set[int]:
    pattern = re.compile(rf"^blocks\.(\d+)\.{re.escape(suffix)}$")
    return {int(match[1]) for key in tensors if (match := pattern.match(key))}
