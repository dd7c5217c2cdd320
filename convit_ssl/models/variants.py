"""The table of model sizes, and the functions that build them by name."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from convit_ssl.models.convit import ConViT, ConViTConfig

# Paper, Table 1: 48 channels per head, 64 in the "+" sizes; twelve layers, ten of them GPSA.
# The DeiT baselines have the same width and heads, and no GPSA. The nano pair is this
# project's own: small enough to train on two CPU cores, for 32-pixel images.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "num_heads": 4},
    "tiny_plus": {"embed_dim": 256, "num_heads": 4},
    "small": {"embed_dim": 432, "num_heads": 9},
    "small_plus": {"embed_dim": 576, "num_heads": 9},
    "base": {"embed_dim": 768, "num_heads": 16},
    "base_plus": {"embed_dim": 1024, "num_heads": 16},
    "nano": {
        "embed_dim": 128,
        "num_heads": 4,
        "depth": 6,
        "num_gpsa_layers": 4,
        "img_size": 32,
        "patch_size": 4,
        "init_std": 0.06,
    },
}
DEIT_SIZES = ("tiny", "small", "base", "nano")

VARIANTS: dict[str, ConViTConfig] = {
    **{f"convit_{size}": ConViTConfig(**fields) for size, fields in SIZES.items()},
    **{
        f"deit_{size}": ConViTConfig(**{**SIZES[size], "num_gpsa_layers": 0}) for size in DEIT_SIZES
    },
}


def create_config(name: str, **overrides: Any) -> ConViTConfig:
    """The configuration of a named variant, with some of its fields changed.

    Raises:
        ValueError: an unknown name or field, with the nearest valid one, or a value that the
            configuration refuses.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown model {name!r}{_nearest(name, VARIANTS)}")
    fields = [field.name for field in dataclasses.fields(ConViTConfig)]
    for key in overrides:
        if key not in fields:
            raise ValueError(f"unknown option {key!r} of {name}{_nearest(key, fields)}")
    return dataclasses.replace(VARIANTS[name], **overrides)


def create_model(name: str, **overrides: Any) -> ConViT:
    """Build a variant by name: ``create_model("convit_small", num_classes=0)``.

    Args:
        name: a key of `VARIANTS`.
        overrides: fields of `ConViTConfig`.

    Raises:
        ValueError: as `create_config`.
    """
    return ConViT(create_config(name, **overrides))


def _nearest(word: str, valid: Any) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (available: {', '.join(valid)})"


def convit_tiny(**overrides: Any) -> ConViT:
    """ConViT-Ti: 6 M parameters, width 192, 4 heads."""
    return create_model("convit_tiny", **overrides)


def convit_tiny_plus(**overrides: Any) -> ConViT:
    """ConViT-Ti+: 10 M parameters, width 256, 4 heads."""
    return create_model("convit_tiny_plus", **overrides)


def convit_small(**overrides: Any) -> ConViT:
    """ConViT-S: 27 M parameters, width 432, 9 heads."""
    return create_model("convit_small", **overrides)


def convit_small_plus(**overrides: Any) -> ConViT:
    """ConViT-S+: 48 M parameters, width 576, 9 heads."""
    return create_model("convit_small_plus", **overrides)


def convit_base(**overrides: Any) -> ConViT:
    """ConViT-B: 86 M parameters, width 768, 16 heads."""
    return create_model("convit_base", **overrides)


def convit_base_plus(**overrides: Any) -> ConViT:
    """ConViT-B+: 152 M parameters, width 1024, 16 heads."""
    return create_model("convit_base_plus", **overrides)


def convit_nano(**overrides: Any) -> ConViT:
    """The CPU-size ConViT: 1.3 M parameters, width 128, 4 heads, 6 layers of which 4 are GPSA."""
    return create_model("convit_nano", **overrides)


def deit_tiny(**overrides: Any) -> ConViT:
    """The plain ViT of convit_tiny's size."""
    return create_model("deit_tiny", **overrides)


def deit_small(**overrides: Any) -> ConViT:
    """The plain ViT of convit_small's size."""
    return create_model("deit_small", **overrides)


def deit_base(**overrides: Any) -> ConViT:
    """The plain ViT of convit_base's size."""
    return create_model("deit_base", **overrides)


def deit_nano(**overrides: Any) -> ConViT:
    """The plain ViT of convit_nano's size."""
    return create_model("deit_nano", **overrides)
