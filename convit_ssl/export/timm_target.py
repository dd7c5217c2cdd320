"""A trunk as timm's own ConViT, in a folder that ``timm.create_model("local-dir:...")`` loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.data.augment.evaluation import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.export.building import with_positions_for
from convit_ssl.export.files import own_tensors, write_json, write_safetensors
from convit_ssl.export.infer import variant_of
from convit_ssl.models import ConViT, ConViTConfig

# What our class in timm's registry is built from.
_OUR_ARGS = (
    "img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_gpsa_layers", "mlp_ratio",
    "qkv_bias", "local_init", "use_gating", "global_pool",
)  # fmt: skip
# Sizes that timm has under the same name; the others are built from one of them by arguments.
_OWN_NAMES = ("convit_tiny", "convit_small", "convit_base")


def is_oblong(config: ConViTConfig) -> bool:
    """Whether images are not squares, which timm's own ConViT cannot take; our class can."""
    height, width = config.image_shape
    return height != width


def architecture(config: ConViTConfig) -> str:
    """The name in timm of the network that holds this one; ours for oblong images."""
    variant = variant_of(config)
    if is_oblong(config):
        return f"convit_ssl_{(variant or 'convit_tiny').removeprefix('convit_')}"
    return variant if variant in _OWN_NAMES else "convit_tiny"


def model_args(config: ConViTConfig) -> dict[str, Any]:
    """Arguments of timm's ConViT for this configuration.

    Raises:
        UserError: timm's ConViT cannot be this network.
    """
    without = {} if config.use_pos_embed else {"use_pos_embed": False}
    if is_oblong(config):
        return {name: getattr(config, name) for name in _OUR_ARGS} | without
    if not config.use_gating:
        raise UserError("timm's ConViT has a gate in every head, and this trunk has none")
    if config.num_gpsa_layers == config.depth:
        raise UserError("timm's ConViT needs a layer after the GPSA layers, for its class token")
    return {
        "img_size": config.image_shape[0],
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim // config.num_heads,  # timm's is that of one head
        "depth": config.depth,
        "num_heads": config.num_heads,
        "local_up_to_layer": config.num_gpsa_layers,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "global_pool": config.global_pool,  # timm does not take the one beside model_args
    } | without


def timm_config(model: ConViT, data: dict[str, Any], license_name: str) -> dict[str, Any]:
    """The config.json that timm reads."""
    config = model.config
    shape = [config.in_chans, *config.image_shape]
    usual = evaluation_transform(config.image_shape, crop_ratio=data.get("crop_ratio"))
    own = (usual.mean, usual.std) if config.in_chans == 3 else ((0.5,) * config.in_chans,) * 2
    return {
        "architecture": architecture(config),
        "num_classes": config.num_classes,
        "num_features": config.embed_dim,
        "global_pool": config.global_pool,
        "model_args": model_args(config),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": shape,
            "fixed_input_size": True,
            "interpolation": data.get("interpolation", usual.interpolation),
            "crop_pct": usual.crop_ratio,
            "crop_mode": "squash" if usual.whole else "center",
            "mean": list(data.get("mean", own[0])),
            "std": list(data.get("std", own[1])),
            "num_classes": config.num_classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": license_name,
        },
    }


def write_timm_folder(
    model: ConViT, folder: Path, entry: dict[str, Any], data: dict[str, Any], license_name: str
) -> None:
    """config.json and model.safetensors.

    Raises:
        UserError: timm's ConViT cannot be this network.
    """
    config = timm_config(model, data, license_name)
    write_safetensors(folder / "model.safetensors", model.state_dict(), entry)
    write_json(folder / "config.json", config)


def build_timm(config: ConViTConfig) -> nn.Module:
    """The ConViT of timm itself, of this configuration, at random init; ours where it is oblong.

    Raises:
        UserError: there is none.
    """
    import timm

    _register(config)
    model: nn.Module = timm.create_model(
        architecture(config),
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        **model_args(config),
    )
    return model.eval()


def _register(config: ConViTConfig) -> None:
    if is_oblong(config):
        import convit_ssl.export.timm_models  # noqa: F401


def load_into_timm(
    config: ConViTConfig, tensors: dict[str, Tensor], size: tuple[int, int]
) -> nn.Module:
    """The ConViT of timm at another size, with these official weights, strictly."""
    resized = dataclasses.replace(config, img_size=size)
    own, grid = config.grid_size(*config.image_shape), config.grid_size(*size)
    tensors = with_positions_for(tensors, own, grid)
    model = build_timm(resized)
    model.load_state_dict(own_tensors(tensors), strict=True)
    return model


def open_timm_folder(folder: Path) -> nn.Module:
    """What a user of timm writes, with one import more where images are oblong."""
    import timm

    import convit_ssl.export.timm_models  # noqa: F401  for those

    with torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()
