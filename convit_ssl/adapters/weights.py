"""Start a run from existing weights."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.load import layer_norm_eps, resized, set_layer_norm_eps
from convit_ssl.export.other import start_from, start_published
from convit_ssl.models import ConViT
from convit_ssl.models.from_vit import GATE_OF_VIT, from_vit
from convit_ssl.models.trunks import OtherTrunk
from convit_ssl.schema_resolved import Resolved
from convit_ssl.weights_settings import loading_options

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
PATCHES = "patch_embed.proj.weight"
LAYER_NORM_EPS = 1e-6  # of the networks that this project builds


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the weights of a patch embedding to another number of channels.

    A single channel gets the sum over the existing ones. More channels repeat them in turn, scaled
    so that embeddings keep about the same magnitude.

    Args:
        weight: (embed_dim, channels, patch, patch).
        channels: new number of channels.

    Source: timm, ``timm.models.adapt_input_conv``.
    """
    own = weight.shape[1]
    if own == channels:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = [place % own for place in range(channels)]
    return weight[:, turns] * (own / channels)


def for_images_of(
    weight: Tensor, bias: Tensor, own: Statistics, other: Statistics
) -> tuple[Tensor, Tensor]:
    """Adapt a patch embedding to images of another normalisation.

    Exact: one normalisation is a linear function of the other, and patches have no padding.

    Args:
        weight: (embed_dim, channels, patch, patch).
        bias: (embed_dim,).
        own: channel means and standard deviations that it was trained with.
        other: those of the images to come.
    """
    (mean, std), (new_mean, new_std) = (
        (torch.tensor(values, dtype=torch.float64) for values in pair) for pair in (own, other)
    )
    kernel = weight.double()
    scaled = kernel * (new_std / std)[:, None, None]
    shift = torch.einsum("ocij,c->o", kernel, (new_mean - mean) / std)
    return scaled.to(weight.dtype), (bias.double() + shift).to(bias.dtype)


def statistics_of(model: nn.Module) -> Statistics | None:
    """Mean and standard deviation of the normalisation of a file's network, if known."""
    entry = vars(model).get("provenance", {}).get("entry") or {}
    data = entry.get("data") or {}
    mean, std = (data.get(name) if isinstance(data, dict) else None for name in ("mean", "std"))
    if not mean and not std:
        return None
    return tuple(mean or IMAGENET_MEAN), tuple(std or IMAGENET_STD)


def for_own_images(model: ConViT) -> ConViT:
    """The network, adapted to the normalisation of our RGB images."""
    own, ours = statistics_of(model), (IMAGENET_MEAN, IMAGENET_STD)
    if own is not None and own != ours and model.config.in_chans == 3:
        projection: Any = model.patch_embed.proj
        made = for_images_of(projection.weight.data, projection.bias.data, own, ours)
        projection.weight.data, projection.bias.data = made
    return model


def initialise(model: nn.Module, options: Resolved) -> None:
    """Load every tensor of ``weights=PATH`` into the trunk of a VISSL model.

    Position embeddings are resampled to the trunk's image size, and the eps of the LayerNorms is
    taken over. The head keeps its initialisation.

    Raises:
        UserError: the file cannot be read, or its trunk has another shape.
    """
    trunk = getattr(model.trunk, "base_model", model.trunk)
    if isinstance(trunk, OtherTrunk):
        _initialise_other(trunk, options)
        return
    if not options.weights:
        return
    if not isinstance(trunk, ConViT):
        raise UserError(
            f"weights={options.weights} needs the trunk convit_ssl; this experiment has "
            f"{type(trunk).__name__}"
        )
    said = loading_options(options.weights_settings)
    # Of a file that says it, the plan has compared it already.
    said["num_heads"] = options.trunk.num_heads
    size = trunk.config.img_size
    said.setdefault("img_size", size)
    loaded = load_trunk(options.weights, weights=options.weights_from, **said)
    if said["img_size"] != size:  # what they were made for, not what they are wanted for
        loaded = resized(loaded, size)
    if not Reading.of(options.data).native:
        loaded = for_own_images(loaded)
    if trunk.config.num_gpsa_layers and not loaded.config.num_gpsa_layers:
        _initialise_from_vit(trunk, loaded, options)
        return
    ours, theirs = trunk.state_dict(), loaded.state_dict()
    theirs[PATCHES] = for_channels(theirs[PATCHES], trunk.config.in_chans)
    wrong = [
        f"{key} {tuple(theirs[key].shape)} instead of {tuple(value.shape)}"
        if key in theirs
        else f"{key} missing"
        for key, value in ours.items()
        if key not in theirs or theirs[key].shape != value.shape
    ]
    wrong += [f"{key} unknown" for key in theirs if key not in ours and not key.startswith("head.")]
    if wrong:
        raise UserError(
            f"{options.weights} holds a different network from "
            f"trunk.variant={options.trunk.variant}: "
            f"{'; '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}. "
            "Choose the trunk it was made with, for example trunk=convit_nano"
        )
    trunk.load_state_dict({key: theirs[key] for key in ours}, strict=True)
    set_layer_norm_eps(trunk, layer_norm_eps(loaded))


def _initialise_from_vit(trunk: ConViT, vit: ConViT, options: Resolved) -> None:
    """Initialise a ConViT from a plain ViT, and describe what was loaded."""
    if vit.config.in_chans != trunk.config.in_chans:
        adapted = for_channels(vit.patch_embed.proj.weight, trunk.config.in_chans)
        vit.patch_embed.proj.weight = nn.Parameter(adapted.detach())
    try:
        taken = from_vit(trunk, vit, options.trunk.gate_start or GATE_OF_VIT)
    except ValueError as error:
        raise UserError(f"{options.weights} cannot start this ConViT: {error}") from None
    set_layer_norm_eps(trunk, layer_norm_eps(vit))
    logging.getLogger(__name__).info("ConViT from the ViT of %s: %s", options.weights, taken)


def entry_of_trunk(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint records about the trunk besides its configuration: an unusual eps."""
    trunk: Any = getattr(model.trunk, "base_model", model.trunk)
    if not isinstance(trunk, ConViT) or layer_norm_eps(trunk) == LAYER_NORM_EPS:
        return {}
    return {"layer_norm_eps": layer_norm_eps(trunk)}


def _initialise_other(trunk: OtherTrunk, options: Resolved) -> None:
    pretrained = options.trunk.pretrained
    if options.weights:
        start_from(trunk, options.weights, options.weights_from)
    elif isinstance(pretrained, str):
        start_from(trunk, pretrained)
    elif pretrained:
        start_published(trunk)
