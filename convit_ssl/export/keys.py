"""Names of a ConViT's tensors: the official ones, and those of VISSL 0.1.6.

timm and this project use the official names.

VISSL's GPSA has 3 x locality_dim position columns, of which each third sees the same number,
and divides the scores by locality_dim; so the mean over each third is the official weight. Its
gate is called alpha and its class token and position embeddings have other names.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.foreign import to_official_vit

# VISSL 0.1.6 (vissl/models/trunks/convit.py) -> official.
_FROM_VISSL = (
    (r"^class_token$", "cls_token"),
    (r"^pos_embedding$", "pos_embed"),
    (r"\.mlp\.linear_1\.", ".mlp.fc1."),
    (r"\.mlp\.linear_2\.", ".mlp.fc2."),
    (r"\.attn\.alpha$", ".attn.gating_param"),
)
_TO_VISSL = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "pos_embedding"),
    (r"\.mlp\.fc1\.", ".mlp.linear_1."),
    (r"\.mlp\.fc2\.", ".mlp.linear_2."),
    (r"\.attn\.gating_param$", ".attn.alpha"),
)
# VISSL's ConViT uses nn.LayerNorm's default; the release, timm and this project use 1e-6.
VISSL_LAYER_NORM_EPS = 1e-5
# Buffers that old versions saved, made anew by whoever needs them, and what stands for a hidden
# patch in training.
_DERIVED = re.compile(r"(^|\.)rel_indices$|^mask_token$")


def is_vissl(tensors: dict[str, Tensor]) -> bool:
    """Whether the names are those of VISSL 0.1.6's own ConViT."""
    gates = any(key.endswith(".attn.alpha") for key in tensors)
    return "class_token" in tensors and ("pos_embedding" in tensors or gates)


def to_official(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names and shapes, from any layout that is known.

    Position embeddings stay as they are: with or without one for the class token.
    """
    kept = {key: value for key, value in tensors.items() if not _DERIVED.search(key)}
    if is_vissl(kept):
        columns = locality_dim(kept) or 1
        return {
            _rename(key, _FROM_VISSL): _fold(key, value, columns) for key, value in kept.items()
        }
    return kept if has_gpsa(kept) else to_official_vit(kept)


def has_gpsa(tensors: dict[str, Tensor]) -> bool:
    """Whether it is a ConViT, and not a plain ViT."""
    return any(".attn.qk." in key for key in tensors)


def without_class_position(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold a plain ViT's position embedding of the class token into the token itself.

    DeiT and DINO add one to each; their sum is all that the network sees.
    """
    positions, token = tensors["pos_embed"], tensors["cls_token"]
    return {**tensors, "cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}


def to_vissl(
    tensors: dict[str, Tensor], locality_dim: int = 10, grid: tuple[int, int] = (0, 0)
) -> dict[str, Tensor]:
    """VISSL 0.1.6's names and shapes, without the classifier, which VISSL keeps in a head.

    Args:
        tensors: with official names.
        locality_dim: columns per coordinate of VISSL's pos_proj.
        grid: rows and columns of patches. VISSL's network always adds position embeddings, so
            one without them gets zeros, which compute the same.
    """
    renamed = {}
    if "pos_embed" not in tensors:
        zeros = tensors["cls_token"].new_zeros(1, grid[0] * grid[1], tensors["cls_token"].shape[-1])
        tensors = {**tensors, "pos_embed": zeros}
    for key, value in tensors.items():
        if key.startswith("head."):
            continue
        if key.endswith("pos_proj.weight"):
            value = value.repeat_interleave(locality_dim, dim=1)
        elif key.endswith("pos_proj.bias"):
            value = value * locality_dim
        elif key.endswith("gating_param"):
            value = value.view(1, -1, 1, 1)
        renamed[_rename(key, _TO_VISSL)] = value
    return renamed


def locality_dim(tensors: dict[str, Tensor]) -> int | None:
    """Columns per coordinate of VISSL's pos_proj; 1 in the official form, None without GPSA."""
    for key, value in tensors.items():
        if key.endswith("pos_proj.weight"):
            return value.shape[1] // 3
    return None


def _rename(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key


def _fold(key: str, value: Tensor, columns: int) -> Tensor:
    if key.endswith("attn.alpha"):
        return value.flatten()
    if key.endswith("pos_proj.bias"):
        return value / columns
    if key.endswith("pos_proj.weight"):
        if value.dim() != 2 or value.shape[1] % 3:
            raise UserError(
                f"{key} has shape {tuple(value.shape)}; its number of columns must be divisible "
                "by 3"
            )
        groups = value.view(value.shape[0], 3, columns)
        first = groups[..., 0]
        # The mean of ten equal floats need not be that float; taking it keeps round trips exact.
        return (
            first if torch.equal(groups, first.unsqueeze(-1).expand_as(groups)) else groups.mean(-1)
        )
    return value
