"""Names of plain ViTs of other libraries, brought to the official ones.

Hugging Face transformers (ViT, DeiT, DINOv2), torchvision and DINOv2's own blocks name the same
tensors differently. A LayerScale is a factor per channel behind a linear layer, so it folds into
that layer. What a ConViT cannot hold (rotary positions, register tokens, SwiGLU) is refused.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from convit_ssl.errors import UserError

# A key that all trunks of a layout have, and that ends a trunk's prefix.
ANCHORS = {
    "official": "patch_embed.proj.weight",
    "transformers": "embeddings.patch_embeddings.projection.weight",
    "torchvision": "conv_proj.weight",
}
_TRANSFORMERS = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.(mask_token|register_tokens|distillation_token)$", r"\1"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^pooler\.", "head.pooler."),
)
_TORCHVISION = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)
_TABLES = {"transformers": _TRANSFORMERS, "torchvision": _TORCHVISION}

# DINOv2 cuts its blocks into chunks for FSDP: blocks.<chunk>.<block>.
_CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")
# Trained beside a trunk and unused when it gives features.
_UNUSED = re.compile(r"^(mask_token|masked_embed|decoder[_.].*)$")

# What stops a trunk from being a ConViT, by its key, and the way out.
_CANNOT = (
    (
        r"^rope_embed\.|^rope\.|\.rope\.",
        "rotary position embeddings (DINOv3)",
        "its DINO or DINOv2 predecessors load",
    ),
    (
        r"^(register_tokens|reg_token|storage_tokens)$",
        "register tokens",
        "take the same network without registers, such as dinov2_vits14",
    ),
    (
        r"\.mlp\.(w12|w3|fc1_g|fc1_x|weights_in)\.",
        "a SwiGLU in place of the MLP",
        "take a smaller network of the family, which has an MLP",
    ),
    (
        r"^(dist_token|distillation_token)$",
        "a distillation token",
        "take the network without distillation, such as deit_small",
    ),
    (r"^norm_pre\.|^pre_layrnorm\.", "a LayerNorm before the first block (CLIP)", "CLIP's do not"),
    (r"\.attn\.(q_norm|k_norm)\.", "normalised queries and keys", "take a network without them"),
    (r"^patch_embed\.(proj\.\d|backbone|conv)", "a convolutional stem", "take a ViT with patches"),
)


def layout_of(tensors: dict[str, Tensor]) -> str:
    """official, transformers or torchvision, by the names."""
    return next((name for name, anchor in ANCHORS.items() if anchor in tensors), "official")


def refuse_what_cannot_be(tensors: dict[str, Tensor], path: str) -> None:
    """Refuse networks that a ConViT cannot be, whatever their sizes.

    Args:
        tensors: with the official names as far as there are any.
        path: for the message.

    Raises:
        UserError: what it has, and the way out.
    """
    for pattern, words, way_out in _CANNOT:
        if any(re.search(pattern, key) for key in tensors):
            raise UserError(
                f"{path} holds a ViT with {words}, which ConViT does not support: {way_out}. To "
                f"compare with it, extract its features with its own library"
            )


def to_official_vit(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names and shapes of a plain ViT, from any of the layouts."""
    table = _TABLES.get(layout_of(tensors), ())
    named: dict[str, Tensor] = {}
    for key, value in tensors.items():
        for pattern, replacement in table:
            key = re.sub(pattern, replacement, key)
        key = _CHUNK.sub(r"blocks.\1.", key)
        if not _UNUSED.match(key):
            named[key] = value
    return _scaled(_joined(named))


def unused(tensors: dict[str, Tensor]) -> list[str]:
    """Keys that `to_official_vit` leaves out."""
    return [key for key in tensors if _UNUSED.match(key.removeprefix("embeddings."))]


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor."""
    joined = dict(tensors)
    for key in tensors:
        match = re.match(r"(blocks\.\d+\.attn)\.query\.(weight|bias)$", key)
        if match:
            parts = [f"{match[1]}.{name}.{match[2]}" for name in ("query", "key", "value")]
            if all(part in joined for part in parts):
                joined[f"{match[1]}.qkv.{match[2]}"] = torch.cat([joined.pop(p) for p in parts])
    return joined


def _scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """LayerScale folded into the linear layer before it: rounding apart, the same network."""
    scaled = dict(tensors)
    for key in tensors:
        match = re.match(r"(blocks\.\d+)\.ls([12])\.gamma$", key)
        if not match:
            continue
        layer = f"{match[1]}.{'attn.proj' if match[2] == '1' else 'mlp.fc2'}"
        gamma = scaled.pop(key)
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in scaled:
                factor = gamma[:, None] if scaled[name].dim() == 2 else gamma
                scaled[name] = scaled[name] * factor
    return scaled
