"""Any checkpoint of a ConViT, as a model."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.checksums import whole_checkpoint
from convit_ssl.errors import UserError
from convit_ssl.export.files import ENTRY, read_weights
from convit_ssl.export.infer import config_from_entry, config_from_tensors, variant_of
from convit_ssl.export.keys import VISSL_LAYER_NORM_EPS, is_vissl, locality_dim, to_official
from convit_ssl.export.layouts import FoundTrunk, choose, find_trunks
from convit_ssl.export.seal import check_fingerprint
from convit_ssl.export.sources import locate
from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.fingerprint import weights_fingerprint

# Keys of a trunk's own state dict that belong to training heads, and are left out with notice.
_HEADS = ("head_dist.", "heads.", "head.", "projector.", "predictor.", "fc_norm.", "pre_logits.")


@dataclass
class Provenance:
    """Where a trunk came from. `load_trunk` leaves it as a dictionary in `model.provenance`.

    Attributes:
        path: the file that was read.
        weights: which of the file's weights were taken: teacher, student, ema or model.
        available: all that it holds, and where.
        layout: "convit_ssl", "official" or "vissl" (names of the tensors).
        variant: the named variant of this architecture, or None.
        config: fields of the model's configuration.
        method, epoch, data, commit: from our own checkpoints, None elsewhere.
        fingerprint: sha256 of all that the outputs depend on, as loaded.
        not_loaded: tensors of the same state dict that are no part of the trunk.
        notes: what a reader should know.
        entry: all that our own checkpoints say about themselves.
    """

    path: str
    weights: str
    available: dict[str, str]
    layout: str
    variant: str | None
    config: dict[str, Any]
    fingerprint: str
    layer_norm_eps: float = 1e-6
    method: str | None = None
    epoch: int | None = None
    data: Any = None
    commit: str | None = None
    not_loaded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)


def load_trunk(
    path: str | os.PathLike[str],
    weights: str = "teacher",
    img_size: int | tuple[int, int] | None = None,
    *,
    num_classes: int | None = None,
    variant: str | None = None,
    num_heads: int | None = None,
) -> ConViT:
    """Load a ConViT from any checkpoint, strictly: every weight is in the file, or none is taken.

    Args:
        path: a checkpoint of this project or of VISSL 0.1.6, official or timm weights, a DINO
            style ``{student, teacher}`` file, a run folder, a folder written for timm or the
            hub, or a name on the hub such as ``timm:convit_small``.
        weights: "teacher" takes the teacher where there is one, and otherwise the weights the
            file has; "student" and "ema" are taken at their word.
        img_size: resample the position embeddings to this size (pixels, or height and width).
        num_classes: 0 leaves a classifier out; by default it comes along where there is one.
        variant: refuse anything but this variant.
        num_heads: of a plain ViT of another project, whose tensors do not tell.

    Returns:
        The model in eval mode, with `provenance`, a dictionary; see `Provenance`.

    Raises:
        UserError: nothing was loaded, and why.
    """
    file, content, entry = _read(path)
    model = _from_content(
        content, entry, str(file), weights, img_size, num_classes, variant, num_heads
    )
    if (whole := whole_checkpoint(Path(path))) is not None:
        vars(model)["provenance"]["notes"] += [f"Of the run, {text}." for text in whole[1]]
    return model


def from_tensors(tensors: dict[str, Tensor], name: str) -> ConViT:
    """A model from a state dict in memory, with the checks of `load_trunk`.

    Args:
        tensors: with official or VISSL names.
        name: for messages, and for `provenance`.
    """
    return _from_content(tensors, {}, name)


def _from_content(
    content: Any,
    entry: dict[str, Any],
    file: str,
    weights: str = "teacher",
    img_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    variant: str | None = None,
    num_heads: int | None = None,
) -> ConViT:
    found = find_trunks(content, file)
    trunk = choose(found, weights, file)
    tensors = to_official(trunk.tensors)
    config = _config(tensors, entry, file, num_heads)
    classifier = _own_classifier(content, entry) if trunk.role == "student" else {}
    if classifier:
        tensors |= classifier
        config = dataclasses.replace(config, num_classes=len(classifier["head.bias"]))
    _check_variant(config, variant, file)
    model, left_out = build(config, tensors, file)
    eps = entry.get("layer_norm_eps", VISSL_LAYER_NORM_EPS if is_vissl(trunk.tensors) else 1e-6)
    set_layer_norm_eps(model, float(eps))
    check_fingerprint(file, model, entry)
    if num_classes == 0 and config.num_classes:
        without = dataclasses.replace(config, num_classes=0)
        model, left_out = build(without, tensors, file)
        set_layer_norm_eps(model, float(eps))
    if img_size is not None:
        model = resized(model, img_size)
    provenance = _provenance(file, model, trunk, found, entry)
    provenance.not_loaded = sorted([*left_out, *trunk.beside])
    model.provenance = dataclasses.asdict(provenance)  # type: ignore[assignment]
    return model


def build(config: ConViTConfig, tensors: dict[str, Tensor], path: str) -> tuple[ConViT, list[str]]:
    """A model in eval mode that holds these weights, and the keys it had no use for.

    Raises:
        UserError: a weight is missing, unknown, of another shape or of whole numbers.
    """
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        model = ConViT(config)
    own = model.state_dict()
    unknown = [key for key in tensors if key not in own]
    left_out = [key for key in unknown if key.startswith(_HEADS)]
    faults = [f"{key} is missing" for key in own if key not in tensors]
    faults += [f"{key} is unknown" for key in unknown if key not in left_out]
    faults += [
        f"{key} has shape {tuple(tensors[key].shape)} and not {tuple(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    faults += [
        f"{key} holds {str(tensors[key].dtype).removeprefix('torch.')} numbers"
        for key, value in own.items()
        if key in tensors and value.is_floating_point() and not tensors[key].is_floating_point()
    ]
    if faults:
        more = f", and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise UserError(
            f"{path} does not fit {describe(config)}; nothing was loaded: "
            + "; ".join(faults[:4])
            + more
        )
    model.load_state_dict({key: tensors[key] for key in own})
    return model.eval(), left_out


def resized(model: ConViT, img_size: int | tuple[int, int]) -> ConViT:
    """The same model with position embeddings resampled to another size of image.

    The resampling is the one the model does itself when it sees images of that size, so
    outputs on them are the same.

    Raises:
        UserError: the patch does not divide the size.
    """
    try:
        config = dataclasses.replace(model.config, img_size=img_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    own = model.grid_size(*model.config.image_shape)
    grid = config.grid_size(*config.image_shape)
    tensors = dict(model.state_dict())
    tensors["pos_embed"] = resample_positions(tensors["pos_embed"], own, grid)
    other, _ = build(config, tensors, f"the model at {img_size} pixels")
    set_layer_norm_eps(other, layer_norm_eps(model))
    if hasattr(model, "provenance"):
        other.provenance = model.provenance
    return other


def resample_positions(pos_embed: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, N, D) for another grid, as the model does it in its forward."""
    if grid == own:
        return pos_embed
    as_map = pos_embed.float().transpose(1, 2).reshape(1, -1, *own)  # (1, D, height, width)
    as_map = F.interpolate(as_map, size=grid, mode="bicubic", align_corners=False)
    return as_map.flatten(2).transpose(1, 2).to(pos_embed.dtype)


def set_layer_norm_eps(model: ConViT, eps: float) -> None:
    """Give all LayerNorms this epsilon: 1e-6 in ConViT, 1e-5 in VISSL's own."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps


def layer_norm_eps(model: ConViT) -> float:
    """The epsilon of the model's LayerNorms."""
    return float(model.norm.eps)


def white_level(model: ConViT) -> int | None:
    """What 16-bit grey images called white in training; None where that is not known."""
    entry = getattr(model, "provenance", {}).get("entry") or {}
    data = entry.get("data")
    return data.get("white_level") if isinstance(data, dict) else None


def shape(config: ConViTConfig) -> dict[str, int]:
    """What makes it this network and no other, whatever the images."""
    names = ("embed_dim", "depth", "num_heads", "num_gpsa_layers")
    return {name: getattr(config, name) for name in names}


def describe(config: ConViTConfig) -> str:
    """A configuration in a few words."""
    name = variant_of(config) or "a ConViT"
    return (
        f"{name} (width {config.embed_dim}, {config.num_heads} heads, {config.depth} layers of "
        f"which {config.num_gpsa_layers} GPSA, patch {config.patch_size}, "
        f"{config.image_shape[0]} x {config.image_shape[1]} px)"
    )


def _read(path: str | os.PathLike[str]) -> tuple[str, Any, dict[str, Any]]:
    """The file that a name stands for, its content, and what it says about itself."""
    file = locate(os.fspath(path))
    if not isinstance(file, Path):
        return file.name, file.tensors, {}
    content, entry = read_weights(file)
    if isinstance(content, dict) and isinstance(content.get(ENTRY), dict):
        entry = content[ENTRY]
    return str(file), content, entry


def _config(
    tensors: dict[str, Tensor], entry: dict[str, Any], path: str, num_heads: int | None
) -> ConViTConfig:
    stated = entry.get("model")
    if not isinstance(stated, dict):
        return config_from_tensors(tensors, path, num_heads)
    config = config_from_entry(stated, path)
    # A training run keeps its classifier in a VISSL head, and its trunk has none.
    head = tensors.get("head.weight")
    return dataclasses.replace(config, num_classes=0 if head is None else head.shape[0])


def _check_variant(config: ConViTConfig, variant: str | None, path: str) -> None:
    actual = variant_of(config)
    if variant is not None and variant != actual:
        raise UserError(f"{path} holds {describe(config)}, not {variant}")


def _provenance(
    path: str, model: ConViT, trunk: FoundTrunk, found: list[FoundTrunk], entry: dict[str, Any]
) -> Provenance:
    vissl = is_vissl(trunk.tensors)
    notes = []
    if vissl:
        notes.append(
            f"VISSL's own ConViT: {locality_dim(trunk.tensors)} columns per coordinate folded "
            f"into one, LayerNorm eps {VISSL_LAYER_NORM_EPS} kept"
        )
    config = model.config
    return Provenance(
        path=path,
        weights=trunk.role,
        available={item.role: item.where for item in reversed(found)},
        layout="vissl" if vissl else "convit_ssl" if entry else "official",
        variant=variant_of(config),
        config=dataclasses.asdict(config),
        fingerprint=weights_fingerprint(model),
        layer_norm_eps=layer_norm_eps(model),
        method=entry.get("method"),
        epoch=entry.get("epoch"),
        data=entry.get("data"),
        commit=entry.get("commit"),
        notes=notes,
        entry=entry,
    )


def _own_classifier(content: Any, entry: dict[str, Any]) -> dict[str, Tensor]:
    """The classifier of a supervised run of ours, which VISSL keeps as a head behind the trunk."""
    if entry.get("method") != "supervised" or "classy_state_dict" not in content:
        return {}
    heads = content["classy_state_dict"]["base_model"]["model"]["heads"]
    return {"head.weight": heads["0.weight"], "head.bias": heads["0.bias"]}
