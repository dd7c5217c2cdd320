"""Heads of a plain ViT whose architecture is known by name."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass
from typing import Any

import torch

from convit_ssl.export.stated import Stated

# Heads by size: as in DeiT, DINO, DINOv2, iBOT and timm, and as in MoCo v3.
_USUAL = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "giant2": 24}
_MOCO = {"tiny": 12, "small": 12, "base": 12, "large": 16, "huge": 16}
_BARE = re.compile(
    r"^(?:vit|deit|dino|mae_vit)[_-](tiny|small|base|large|huge|giant2)(?:[_-]?(?:p|patch)?\d+)?$"
)
# Tools whose bare "vit_small" is the usual one, by the keys and words in their files.
_USUAL_TOOLS = ("student", "teacher", "backbone")


@dataclass(frozen=True)
class Named:
    """A published network: its name, and what its code says that its tensors do not.

    Attributes:
        name: of the network, and whose it is.
        num_heads, eps, activation: of its layers.
        mean, std: of the images' channels, as timm records them; None for the code of papers,
            which takes ImageNet's.
    """

    name: str
    num_heads: int
    eps: float
    activation: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def named_network(stated: Stated, where: str, width: int, depth: int) -> Named | None:
    """The published network that a file names; None where it names none.

    Args:
        stated: with the names.
        where: the way to the trunk in the file; MoCo v3's is its own.
        width: of the tensors; a name of another network says nothing.
        depth: of the tensors.
    """
    words = where.split(".")
    moco = "momentum_encoder" in words or "base_encoder" in words
    moco = moco or stated.method in ("mocov3", "mae") or any("mocov3" in n for n in stated.names)
    usual = any(word in _USUAL_TOOLS or "backbone" in word for word in words)
    for name in stated.names:
        bare = name.rpartition("/")[2].partition(".")[0].lower()
        match = _BARE.match(bare)
        if match and (moco or usual or match[1] in ("base", "large")):
            heads = (_MOCO if moco else _USUAL).get(match[1])
            if heads and width % heads == 0:
                whose = "MoCo v3's " if moco else ""
                return Named(f"{whose}{bare}", heads, 1e-6, "gelu")
    for name in stated.names:
        found = timm_facts(name)
        if found and (found["width"], found["depth"]) == (width, depth):
            name = f"timm's {found['name']}"
            facts = ("num_heads", "eps", "activation", "mean", "std")
            return Named(name, *(found[fact] for fact in facts))
    return None


@functools.cache
def timm_facts(name: str) -> dict[str, Any] | None:
    """Width, depth, heads, eps, activation, mean and std of a plain ViT of timm.

    It is built without memory.

    Args:
        name: of the architecture, with or without its tag and the owner before a slash.

    Returns:
        None where timm has no such ViT, or is not installed.
    """
    try:
        import timm
    except Exception:  # whatever stops it from being imported, there is nothing to be learnt
        return None
    name = name.rpartition("/")[2]
    if not re.fullmatch(r"[\w.]{3,100}", name) or not timm.is_model(name.partition(".")[0]):
        return None
    with contextlib.suppress(Exception), torch.device("meta"):
        model: Any = timm.create_model(name.partition(".")[0], pretrained=False)
        return {
            "name": name,
            "width": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": model.blocks[0].attn.num_heads,
            "eps": model.norm.eps,
            "activation": activation_of(model.blocks),
            "mean": tuple(model.default_cfg["mean"]),
            "std": tuple(model.default_cfg["std"]),
        }
    return None


def activation_of(blocks: Any) -> str | None:
    """The class of the MLPs' activation, as `Stated` names it; None if there is none."""
    act = getattr(getattr(blocks[0], "mlp", None), "act", None) if blocks else None
    known = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "ReLU": "relu"}
    return None if act is None else known.get(type(act).__name__, type(act).__name__)
