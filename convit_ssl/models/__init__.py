"""ConViT and its DeiT baselines in plain PyTorch."""

from convit_ssl.models.convit import Block, ConViT, ConViTConfig, Intermediates
from convit_ssl.models.gpsa import GPSA, AttentionMaps, PositionFactors
from convit_ssl.models.variants import (
    VARIANTS,
    convit_base,
    convit_base_plus,
    convit_nano,
    convit_small,
    convit_small_plus,
    convit_tiny,
    convit_tiny_plus,
    create_config,
    create_model,
    deit_base,
    deit_nano,
    deit_small,
    deit_tiny,
)

__all__ = [
    "GPSA",
    "VARIANTS",
    "AttentionMaps",
    "Block",
    "ConViT",
    "ConViTConfig",
    "Intermediates",
    "PositionFactors",
    "convit_base",
    "convit_base_plus",
    "convit_nano",
    "convit_small",
    "convit_small_plus",
    "convit_tiny",
    "convit_tiny_plus",
    "create_config",
    "create_model",
    "deit_base",
    "deit_nano",
    "deit_small",
    "deit_tiny",
]
