"""Frozen random patch projection: MoCo v3's remedy for unstable ViT training."""

import math

import torch
from torch import nn


def freeze_patch_projection(trunk: nn.Module, random_init: bool = False) -> list[str]:
    """Stops training the patch embedding; call before the optimiser is made.

    Args:
        trunk: a module with ``patch_embed.proj`` (a convolution).
        random_init: draw it anew from MoCo v3's uniform distribution; leave off
            when the trunk carries weights to keep.

    Returns:
        Names of the frozen parameters.

    Raises:
        ValueError: no ``patch_embed.proj`` convolution in ``trunk``.

    Source: arXiv:2104.02057, section 4.2; github.com/facebookresearch/moco-v3, vits.py.
    """
    embedding = getattr(trunk, "patch_embed", None)
    projection = getattr(embedding, "proj", None)
    if not isinstance(embedding, nn.Module) or not isinstance(projection, nn.Conv2d):
        raise ValueError(
            f"{type(trunk).__name__} has no convolution patch_embed.proj to freeze; pass the trunk"
        )
    if random_init:
        fan_in = projection.weight[0].numel()
        bound = math.sqrt(6 / (fan_in + projection.out_channels))
        nn.init.uniform_(projection.weight, -bound, bound)
        if projection.bias is not None:
            with torch.no_grad():
                projection.bias.zero_()
    embedding.requires_grad_(False)
    return [f"patch_embed.{name}" for name, _ in embedding.named_parameters()]
