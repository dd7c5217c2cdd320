"""The networks that are compared, with the same widths, heads and depth, and no classifier."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from convit_ssl.errors import UserError
from convit_ssl.models import VARIANTS, ConViT, ConViTConfig

CONTENDERS = {
    "ours": "convit_ssl",
    "timm": "timm's ConViT",
    "vissl": "VISSL's ConViT",
    "vit": "plain ViT (timm)",
}


def size_config(size: str, side: int) -> ConViTConfig:
    """The configuration of ``tiny``, ``small``, ... at an image side in pixels.

    Raises:
        UserError: there is no such size, or the patch does not divide the side.
    """
    name = f"convit_{size}"
    if name not in VARIANTS:
        sizes = ", ".join(n.removeprefix("convit_") for n in VARIANTS if n.startswith("convit_"))
        raise UserError(f"unknown size {size!r}; choose from {sizes}")
    try:
        return dataclasses.replace(VARIANTS[name], img_size=side, num_classes=0)
    except ValueError as error:
        raise UserError(str(error)) from error


def build(name: str, config: ConViTConfig) -> nn.Module:
    """One contender; maps images to the features of the class token.

    Raises:
        UserError: an unknown name, or VISSL is not installed.
    """
    if name == "ours":
        return ConViT(config)
    if name == "timm":
        return timm_convit(config)
    if name == "vit":
        from timm.models.vision_transformer import VisionTransformer

        vit: nn.Module = VisionTransformer(
            img_size=config.image_shape,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            qkv_bias=config.qkv_bias,
            num_classes=0,
        )
        return vit
    if name == "vissl":
        return VisslConViT(config)
    raise UserError(f"unknown contender {name!r}; choose from {', '.join(CONTENDERS)}")


def timm_convit(config: ConViTConfig) -> nn.Module:
    """Timm's ConViT of any size."""
    from timm.models.convit import ConVit

    model: nn.Module = ConVit(
        img_size=config.image_shape[0],
        patch_size=config.patch_size,
        embed_dim=config.embed_dim // config.num_heads,
        depth=config.depth,
        num_heads=config.num_heads,
        local_up_to_layer=config.num_gpsa_layers,
        num_classes=0,
    )
    return model


class VisslConViT(nn.Module):
    """VISSL's trunk with its own default options, called as a plain network."""

    def __init__(self, config: ConViTConfig) -> None:
        super().__init__()
        from convit_ssl.adapters.vissl_trunk import build_vissl_trunk

        self.trunk = build_vissl_trunk("convit", config)

    def forward(self, images: Tensor) -> Tensor:
        """Features of the class token (B, D)."""
        features: Tensor = self.trunk(images, None)[0]
        return features


def multiply_adds(config: ConViTConfig, side: int) -> float:
    """Multiply-adds of one image's forward pass; those of the position factors are left out."""
    tokens = (side // config.patch_size) ** 2
    per_layer = (4 + 2 * config.mlp_ratio) * config.embed_dim**2 + 2 * tokens * config.embed_dim
    patches = config.in_chans * config.patch_size**2 * config.embed_dim
    return tokens * (config.depth * per_layer + patches)


# Dense bfloat16 peaks of the data sheets, in FLOP/s, by a part of the device's name.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def peak_flops(device: torch.device) -> float | None:
    """The data sheet's bfloat16 peak of a CUDA device, None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
