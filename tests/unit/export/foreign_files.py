"""Small networks as other tools save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convit_ssl.export import load_trunk
from convit_ssl.models import ConViT, ConViTConfig

State = dict[str, Tensor]

HALF = {"mean": [0.5], "std": [0.5]}  # of images


def vit(width: int = 64, heads: int = 4, size: Any = 32, depth: int = 2, seed: int = 1) -> ConViT:
    """A plain ViT as if trained; ours, so that what others name otherwise is computed alike."""
    config = ConViTConfig(
        img_size=size, patch_size=8, num_classes=0, embed_dim=width, depth=depth, num_heads=heads,
        num_gpsa_layers=0, qkv_bias=True, local_init=False,
    )  # fmt: skip
    model = ConViT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def official(model: ConViT) -> State:
    """As DINO and timm save it: a position embedding for the class token, too."""
    state = dict(model.state_dict())
    extra = torch.full_like(state["cls_token"], 0.25)
    state["cls_token"] = state["cls_token"] - extra
    return {**state, "pos_embed": torch.cat([extra, state["pos_embed"]], dim=1)}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def transformers(state: State, dinov2: bool = False) -> State:
    """The names of Hugging Face's ViT or DINOv2."""
    names = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "blocks": "encoder.layer",
        "norm.": "layernorm.", "attn.proj": "attention.output.dense",
    }  # fmt: skip
    if not dinov2:
        names |= {
            "norm1": "layernorm_before", "norm2": "layernorm_after",
            "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
        }  # fmt: skip
    renamed: State = {}
    for key, value in state.items():
        if "attn.qkv" in key:
            block, kind = key.split(".")[1], key.rpartition(".")[2]
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"encoder.layer.{block}.attention.attention.{name}.{kind}"] = part
            continue
        for old, new in names.items():
            if key.startswith(old) or f".{old}" in key:
                key = key.replace(old, new)
        renamed[key] = value
    return renamed


def check(path: Path, model: ConViT, **options: Any) -> ConViT:
    loaded = load_trunk(path, **options)
    images = torch.randn(2, 3, *model.config.image_shape, generator=torch.manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=1e-5)
    return loaded
