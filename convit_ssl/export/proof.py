"""Whether what was loaded computes what its source computes, by something that guesses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.architectures import timm_facts
from convit_ssl.export.building import activation, layer_norm_eps, resample_positions
from convit_ssl.export.check import Difference, compare, own_size
from convit_ssl.export.files import own_tensors, read_weights
from convit_ssl.export.keys import to_official
from convit_ssl.export.layouts import choose, find_trunks
from convit_ssl.export.sources import locate
from convit_ssl.export.timm_target import load_into_timm
from convit_ssl.models import ConViT
from convit_ssl.reading import WEIGHTS_LIMIT, announced_arrays, regular_file

_HEADS = ("head.", "head_dist.", "fc_norm.", "projector.", "predictor.")


def by_timm_convit(model: ConViT) -> tuple[str, Difference | str]:
    """Against timm's ConViT, whose code has its own epsilon, activation and positions."""
    if layer_norm_eps(model) != 1e-6 or activation(model) != "gelu":
        return "timm's ConViT", "not comparable, its LayerNorm eps is 1e-06 and it has GELU"
    size = own_size(model)
    theirs = load_into_timm(model.config, dict(model.state_dict()), size)
    return "timm's ConViT", compare(model, theirs, size)


def by_timm_vit(
    model: ConViT, source: str, weights: str, name: str
) -> tuple[str, Difference | str]:
    """Against timm's model of a name, which has its own heads, epsilon and activation.

    Args:
        model: as it was loaded.
        source: the file, which is read once more.
        weights: which of its weights.
        name: of the architecture in timm.

    Raises:
        UserError: timm has no such model, or the weights are not its.
    """
    import timm

    if timm_facts(name) is None:
        raise UserError(f"timm has no plain ViT of the name {name!r}")
    file = locate(source)
    if not isinstance(file, Path):
        raise UserError(f"{source} comes from timm itself")
    content, _ = read_weights(file)
    raw = choose(find_trunks(content, source), weights, source).tensors
    tensors = {key: v for key, v in to_official(raw).items() if not key.startswith(_HEADS)}
    size = own_size(model)
    with torch.random.fork_rng(devices=[]):
        theirs: Any = timm.create_model(
            name.partition(".")[0], pretrained=False, num_classes=0, img_size=size,
            in_chans=model.config.in_chans,
        ).eval()  # fmt: skip
    tensors["pos_embed"] = _for_size(tensors["pos_embed"], theirs.pos_embed, model)
    missing, unexpected = _load(theirs, tensors)
    if missing or unexpected:
        fault = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unknown there"
        raise UserError(f"the weights are not those of timm's {name}: {fault}")

    def features(images: Tensor) -> Tensor:
        out: Tensor = theirs.forward_features(images)[:, 0]
        return out

    return f"timm's {name}", compare(model, features, size, _features_of(model))


def by_reference(model: ConViT, path: str | os.PathLike[str]) -> tuple[str, Difference | str]:
    """Against stored outputs: an .npz with `images` (N, C, H, W) and `features` (N, D).

    Raises:
        UserError: it cannot be read, or its shapes are not those of the model.
    """
    file = regular_file(path, WEIGHTS_LIMIT)
    try:
        announced_arrays(file)
        with np.load(file, allow_pickle=False) as stored:
            images, expected = (
                torch.from_numpy(np.asarray(stored[name], np.float32))
                for name in ("images", "features")
            )
    except Exception as error:  # numpy's header is parsed as Python, with any of its errors
        raise UserError(
            f"{path} is not an .npz with the arrays images and features: {error}"
        ) from error
    config = model.config
    if images.dim() != 4 or images.shape[1] != config.in_chans or expected.dim() != 2:
        raise UserError(
            f"{path} has images of shape {tuple(images.shape)} and features of "
            f"{tuple(expected.shape)}; expected (N, {config.in_chans}, H, W) and (N, D)"
        )
    with torch.inference_mode():
        try:
            actual = _features_of(model)(images)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
    if actual.shape != expected.shape:
        raise UserError(
            f"{path} has features of shape {tuple(expected.shape)}, ours {tuple(actual.shape)}"
        )
    height, width = images.shape[-2:]
    scale = max(1.0, float(expected.abs().max()))
    value = float((actual - expected).abs().max())
    return f"the features in {path}", Difference((height, width), value, scale)


def _features_of(model: ConViT) -> Callable[[Tensor], Tensor]:
    def ours(images: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(images), pre_logits=True)

    return ours


def _for_size(positions: Tensor, theirs: Tensor, model: ConViT) -> Tensor:
    """The file's positions as they are, or resampled as the model's were."""
    if positions.shape == theirs.shape:
        return positions
    own = model.config.grid_size(*model.config.image_shape)
    side = round((positions.shape[1] - 1) ** 0.5)
    if side * side + 1 != positions.shape[1] or theirs.shape[1] != own[0] * own[1] + 1:
        raise UserError("its position embeddings are not those of timm's model")
    patches = resample_positions(positions[:, 1:], (side, side), own)
    return torch.cat([positions[:, :1], patches], dim=1)


def _load(theirs: Any, tensors: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    wanted = theirs.state_dict()
    wrong = [k for k, v in tensors.items() if k in wanted and wanted[k].shape != v.shape]
    if wrong:
        return [], wrong
    found = theirs.load_state_dict(own_tensors(tensors), strict=False)
    return list(found.missing_keys), list(found.unexpected_keys)
