"""How images were normalised for weights that do not say it.

ConViT, DINO, DINOv2, iBOT, DeiT, MAE, MoCo v3 and torchvision normalise by ImageNet's mean and
standard deviation in their code. timm records them for each of its networks, and its own training
script takes these, so the network's name settles it. A plain ViT in timm's names alone may be
either: most of timm's own take 0.5 and 0.5. The wrong ones give wrong features, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.architectures import Named
from convit_ssl.export.foreign import layout_of
from convit_ssl.export.keys import has_gpsa, is_vissl
from convit_ssl.export.stated import Stated

# Words on the way to a trunk, and beginnings of file names, by the tools that write them.
_OF_TOOLS = ("student", "teacher", "base_encoder", "momentum_encoder", "encoder", "ema")
_RELEASED = re.compile(r"(dino|ibot|deit|mae|moco|convit|vit-[sb]-\d+ep)")
_SET = "--mean, --std, --crop-ratio and --interpolation set it"


def settle_images(
    raw: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    where: str,
    stated: Stated,
    named: Named | None,
    path: str,
    guesses: list[str],
    notes: list[str],
) -> dict[str, list[float]]:
    """Say how images are normalised, and from where that is known.

    Args:
        raw: tensors of the trunk under the file's own names.
        tensors: the same under official ones.
        where: the way to them in the file.
        stated: what is known besides.
        named: the published network that the file names.
        path: of the file.
        guesses: gets what is assumed.
        notes: gets what was read.

    Returns:
        `mean` and `std` that follow from the network's name; empty where the file says its own, or
        where they are ImageNet's.

    Raises:
        UserError: nothing says it.
    """
    _refuse_one_of_two(stated, path)
    if stated.mean is not None:
        mean = ", ".join(f"{value:.4g}" for value in stated.mean)
        std = ", ".join(f"{value:.4g}" for value in stated.std or ())
        if stated.origin.get("mean") != "you":
            notes.append(f"images: mean ({mean}), std ({std}), from {stated.origin.get('mean')}")
        return {}
    tool = _tool(raw, tensors, where, named, path)
    if tool is None and named and _is_of_timm(where, stated):
        notes.append(
            f"images: mean {named.mean}, std {named.std}, as {named.name} has them "
            f"({stated.origin.get('names')})"
        )
        return {"mean": list(named.mean or ()), "std": list(named.std or ())}
    if tool is None:
        raise UserError(
            f"{path} holds a plain ViT in the names of timm, and nothing in it or beside it says "
            "how its images were normalised. All features depend on it, so nothing was loaded. Put "
            "timm's config.json beside it, or give --mean 0.5 --std 0.5 (most of timm's own) or "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (DINO, DeiT, iBOT, MAE, MoCo v3); in "
            "Python images={'mean': ..., 'std': ...}"
        )
    guesses.append(
        f"images are normalised with ImageNet's mean and standard deviation, cropped and resized "
        f"as usual: {tool}. A network that was trained otherwise gives wrong features; {_SET}"
    )
    return {}


def _refuse_one_of_two(stated: Stated, path: str) -> None:
    if (stated.mean is None) != (stated.std is None):
        known, missing = ("std", "mean") if stated.mean is None else ("mean", "std")
        raise UserError(
            f"{path}: the {known} of its images is known ({stated.origin.get(known)}), but not "
            f"the {missing}; give --{missing} too"
        )


def _tool(
    raw: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    where: str,
    named: Named | None,
    path: str,
) -> str | None:
    """Why ImageNet's normalisation is to be expected; None where it is not."""
    words = where.split(".")
    name = re.split(r"[/\\]", path)[-1].lower()
    if has_gpsa(dict(tensors)):
        return "so does the code of ConViT"
    if is_vissl(dict(raw)):
        return "so do VISSL's configurations"
    if "blocks.0.attn.qkv.weight" in tensors and "blocks.0.attn.qkv.bias" not in tensors:
        return "so does this project, whose names and shapes these are"
    if layout_of(dict(raw)) == "torchvision":
        return "so do all ViTs of torchvision, whose names these are"
    if any(".layer_scale" in key for key in raw) or "mask_token" in raw:
        return "so do DINOv2, iBOT and MAE, whose names these are"
    if any("backbone" in word or word in _OF_TOOLS for word in words):
        return f"so do the tools that keep a trunk under {where}"
    if named and named.mean is None:
        return "so does the code of the network that the file names"
    if _RELEASED.match(name):
        return "so does the code of the network that the name of the file says"
    return None


def _is_of_timm(where: str, stated: Stated) -> bool:
    """Whether timm itself wrote the file: its training script, or a folder for the hub."""
    origin = stated.origin.get("names", "")
    script = origin == "arch in the file" and where in ("state_dict", "state_dict_ema")
    return script or origin == "config.json"
