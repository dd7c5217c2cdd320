"""What decays, and how fast each layer learns, in pretraining and in fine-tuning."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

NO_DECAY = ("pos_embed", "cls_token", "mask_token")


def layer_of(name: str, depth: int) -> int:
    """Which layer a parameter of a ConViT belongs to.

    0 is the embedding of patches, positions and class token, i + 1 is block i, depth + 1 is
    the last norm and the classifier, as in MAE (timm counts the norm to the last block).
    Prefixes such as `trunk.` do not matter.
    """
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    if block is not None:
        return int(block[1]) + 1
    embedding = re.search(r"(?:^|\.)(patch_embed\.|pos_embed$|cls_token$|mask_token$)", name)
    return 0 if embedding else depth + 1


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to vectors, tokens and positions.

    Gates, biases and norms are vectors; `pos_proj.weight` is a matrix, and decays as in the
    released recipe.
    """
    return parameter.dim() > 1 and name.rpartition(".")[2] not in NO_DECAY


def parameter_groups(
    model: nn.Module,
    depth: int,
    learning_rate: float,
    weight_decay: float = 0.05,
    layer_decay: float = 0.65,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: each layer learns `layer_decay` times as fast as the one above.

    Args:
        model: a ConViT, alone or inside of other modules.
        depth: blocks of the ConViT.
        learning_rate: of the classifier and the last norm.
        weight_decay: of the parameters that decay.
        layer_decay: 1 makes all layers learn alike. MAE's fine-tuning uses 0.65.

    Returns:
        Groups with `params`, `names`, `lr`, `lr_scale`, `layer` and `weight_decay`, the
        lowest layer first. Parameters that need no gradient are left out.

    Source: ELECTRA (arXiv:2003.10555), BEiT and MAE (arXiv:2111.06377, appendix A.1).
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decayed = layer_of(name, depth), decays(name, parameter)
        if (layer, decayed) not in groups:
            scale = layer_decay ** (depth + 1 - layer)
            groups[layer, decayed] = {
                "params": [],
                "names": [],
                "lr": learning_rate * scale,
                "lr_scale": scale,
                "layer": layer,
                "weight_decay": weight_decay if decayed else 0.0,
            }
        groups[layer, decayed]["params"].append(parameter)
        groups[layer, decayed]["names"].append(name)
    return [groups[key] for key in sorted(groups)]
