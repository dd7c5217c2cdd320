"""Any checkpoint of a ConViT, as a model."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from convit_ssl import plugins
from convit_ssl.checksums import whole_checkpoint
from convit_ssl.errors import UserError
from convit_ssl.export.building import (
    activation,
    build,
    check_activation,
    describe,
    layer_norm_eps,
    resample_positions,
    resized,
    set_activation,
    set_layer_norm_eps,
    shape,
)
from convit_ssl.export.files import ENTRY, read_weights
from convit_ssl.export.foreign import refuse_what_cannot_be, unused
from convit_ssl.export.guesses import Settled, settle
from convit_ssl.export.infer import config_from_entry, config_from_tensors, variant_of
from convit_ssl.export.keys import has_gpsa, to_official, without_class_position
from convit_ssl.export.layouts import FoundTrunk, choose, find_trunks
from convit_ssl.export.other import config_of, is_described, other_trunk
from convit_ssl.export.provenance import Provenance, provenance_of, reading_of
from convit_ssl.export.seal import check_fingerprint
from convit_ssl.export.sources import locate
from convit_ssl.export.stated import ACTIVATIONS, Stated, check_given, stated_beside, stated_inside
from convit_ssl.methods import is_classifier
from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.trunks import Network, OtherTrunk

__all__ = [
    "Provenance", "activation", "build", "check_activation", "describe", "from_tensors",
    "layer_norm_eps", "load_network", "load_trunk", "reading_of", "resample_positions", "resized",
    "say_how_to_set", "set_activation", "set_layer_norm_eps", "shape",
]  # fmt: skip


@dataclass
class _File:
    """A file's content, what it says about itself, and what is said beside it."""

    name: str
    content: Any
    entry: dict[str, Any]
    stated: Stated


@dataclass(frozen=True)
class _Wanted:
    weights: str = "teacher"
    img_size: tuple[int, int] | None = None
    num_classes: int | None = None
    variant: str | None = None
    given: Stated = dataclasses.field(default_factory=Stated)


def load_trunk(
    path: str | os.PathLike[str],
    weights: str = "teacher",
    img_size: int | tuple[int, int] | None = None,
    *,
    num_classes: int | None = None,
    variant: str | None = None,
    num_heads: int | None = None,
    eps: float | None = None,
    activation: str | None = None,
    images: Mapping[str, Any] | None = None,
) -> ConViT:
    """Load a ConViT from any checkpoint, strictly: every weight is in the file, or none is taken.

    What the tensors of a plain ViT leave open is read from the file's hyper-parameters and from
    config.json, preprocessor_config.json or args.json beside it. What is still open is assumed
    where that is safe, with a warning that says how it could be wrong, and refused elsewhere.

    Args:
        path: a checkpoint of this project or of VISSL 0.1.6, official or timm weights, a DINO
            style ``{student, teacher}`` file, a checkpoint of Lightning, a folder of Hugging Face
            transformers, a run folder, a folder written for timm or the hub, or a name on the
            hub such as ``timm:convit_small``.
        weights: "teacher" takes the teacher where there is one, and otherwise the weights the
            file has; "student" and "ema" are taken at their word; anything else is a part of
            the path to a trunk in the file, such as ``momentum_backbone``.
        img_size: pixels, or height and width. Where a file does not say what its position
            embeddings were made for and this fits their number, this is what they were made
            for; otherwise they are resampled to it.
        num_classes: 0 leaves a classifier out; by default it comes along where there is one.
        variant: fail unless it is this variant.
        num_heads: of a plain ViT of another project, whose tensors do not tell.
        eps: of the LayerNorms.
        activation: of the MLPs: gelu, gelu_tanh, quick_gelu, relu or silu.
        images: how images are made for it: `mean`, `std`, `interpolation`, `crop_ratio`.

    Returns:
        The model in eval mode, with `provenance`, a dictionary; see `Provenance`.

    Raises:
        UserError: nothing was loaded, and why.
    """
    given = check_given(num_heads, eps, activation, images or {})
    if isinstance(img_size, int):
        img_size = (img_size, img_size)
    wanted = _Wanted(weights, img_size, num_classes, variant, given)
    model = _noted(_load(path, wanted), path)
    if isinstance(model, OtherTrunk):
        raise UserError(
            f"{os.fspath(path)} holds {model.config.trunk}, and this needs a ConViT or a plain "
            "ViT; knn, linear, features, explore, report and export take any network"
        )
    return model


def load_network(
    path: str | os.PathLike[str],
    weights: str = "teacher",
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> Network:
    """`load_trunk`, of whatever network a run was trained with: ``trunk=timm:NAME``, a plugin's.

    Args:
        path: as for `load_trunk`.
        weights: likewise.
        img_size: likewise.
        options: further arguments of `load_trunk`, for a ConViT.

    Raises:
        UserError: nothing was loaded, and why.
    """
    images = options.pop("images", None) or {}
    heads, eps, act = (options.pop(name, None) for name in ("num_heads", "eps", "activation"))
    given = check_given(heads, eps, act, images)
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    return _noted(_load(path, _Wanted(weights, size, given=given, **options)), path)


def describes_other(path: str | os.PathLike[str]) -> bool:
    """Whether a file of ours says that its network is not a ConViT."""
    return is_described(_read(path).entry)


def _load(path: str | os.PathLike[str], wanted: _Wanted) -> Network:
    file = _read(path)
    if not is_described(file.entry):
        return _from_content(file, wanted)
    return _other(file, wanted)


def _other(file: _File, wanted: _Wanted) -> Network:
    """A network that is not a ConViT. Its library knows its layers; its images can be described.

    Raises:
        UserError: the user describes what the library knows.
    """
    given = {name: getattr(wanted.given, name) for name in ("num_heads", "eps", "activation")}
    said = next((name for name, value in given.items() if value is not None), None)
    config = config_of(file.entry, file.name)
    if said:
        raise UserError(
            f"{file.name} holds {config.trunk}, which is built by its own library, not from "
            f"{said}={given[said]}; leave --{said.replace('_', '-')} out"
        )
    images = _for_channels(wanted.given.images(), config.in_chans, file.name)
    entry = _with_images(file.entry, images)
    return other_trunk(file.content, entry, file.name, wanted.weights, wanted.img_size)


def _noted(model: Network, path: str | os.PathLike[str]) -> Network:
    if (whole := whole_checkpoint(Path(path))) is not None:
        vars(model)["provenance"]["notes"] += [f"Of the run, {text}." for text in whole[1]]
    return model


def say_how_to_set(model: ConViT, path: str) -> None:
    """For training, whose options have other names than the flags that a guess names."""
    if vars(model)["provenance"]["guesses"]:
        _warn(
            f"{path}: as options of training, --eps X is weights_settings.eps=X, and so are "
            "num_heads, activation, img_size, mean and std"
        )


def from_tensors(tensors: dict[str, Tensor], name: str, stated: Stated | None = None) -> ConViT:
    """A model from a state dict in memory, with the checks of `load_trunk`.

    Args:
        tensors: with official or VISSL names.
        name: for messages, and for `provenance`.
        stated: what is known of the network besides.
    """
    return _from_content(_File(name, tensors, {}, stated or Stated()), _Wanted())


def _from_content(file: _File, wanted: _Wanted) -> ConViT:
    found = find_trunks(file.content, file.name)
    trunk = choose(found, wanted.weights, file.name)
    tensors = to_official(trunk.tensors)
    config, settled, tensors = _network(file, trunk, tensors, wanted)
    classifier = _own_classifier(file) if trunk.role == "student" else {}
    if classifier:
        tensors |= classifier
        config = dataclasses.replace(config, num_classes=len(classifier["head.bias"]))
    _check_variant(config, wanted.variant, file.name)
    model, left_out = build(config, tensors, file.name)
    set_layer_norm_eps(model, settled.eps)
    set_activation(model, settled.activation)
    check_fingerprint(file.name, model, file.entry)
    if wanted.num_classes == 0 and config.num_classes:
        without = dataclasses.replace(config, num_classes=0)
        model, left_out = build(without, tensors, file.name)
        set_layer_norm_eps(model, settled.eps)
        set_activation(model, settled.activation)
    if wanted.img_size is not None and settled.resample:
        model = resized(model, wanted.img_size)
    said = settled.images | file.stated.under(wanted.given).images()
    images = _for_channels(said, config.in_chans, file.name)
    provenance = provenance_of(file.name, model, trunk, found, _with_images(file.entry, images))
    provenance.names = list(file.stated.names)
    provenance.guesses, provenance.notes = settled.guesses, provenance.notes + settled.notes
    provenance.not_loaded = sorted([*left_out, *unused(trunk.tensors), *trunk.beside])
    model.provenance = dataclasses.asdict(provenance)
    for guess in settled.guesses:
        _warn(f"{file.name}: {guess}")
    return model


def _network(
    file: _File, trunk: FoundTrunk, tensors: dict[str, Tensor], wanted: _Wanted
) -> tuple[ConViTConfig, Settled, dict[str, Tensor]]:
    """The configuration, what was settled beside it, and the tensors that go with them."""
    refuse_what_cannot_be(tensors, file.name)
    described = file.entry.get("model")
    if isinstance(described, dict):
        config = config_from_entry(described, file.name)
        # A training run keeps its classifier in a VISSL head, and its trunk has none.
        head = tensors.get("head.weight")
        config = dataclasses.replace(config, num_classes=0 if head is None else head.shape[0])
        return config, _settled_by(file, config, wanted), tensors
    _check_complete(tensors, file.name)
    stated = file.stated.under(wanted.given)
    settled = settle(trunk.tensors, tensors, trunk.where, stated, wanted.img_size, file.name)
    if settled.class_position:
        tensors = without_class_position(tensors)
    config = config_from_tensors(tensors, file.name, settled.num_heads, settled.img_size)
    return config, settled, tensors


def _check_complete(tensors: dict[str, Tensor], path: str) -> None:
    # The release can train a ConViT without position embeddings; a plain ViT without them has
    # others (rotary, relative) that it does not compute.
    optional = ("pos_embed",) if has_gpsa(tensors) else ()
    for key, dims in (("patch_embed.proj.weight", 4), ("pos_embed", 3), ("cls_token", 3)):
        if key not in tensors and key in optional:
            continue
        if key not in tensors:
            raise UserError(f"{path} is not a complete ConViT: {key} is missing")
        if tensors[key].dim() != dims:
            raise UserError(
                f"{path} is not a ConViT: {key} has shape {tuple(tensors[key].shape)}, "
                f"which should have {dims} dimensions"
            )


def _settled_by(file: _File, config: ConViTConfig, wanted: _Wanted) -> Settled:
    """What one of our own files says. Nothing is open, and the user cannot mean something else.

    Raises:
        UserError: the user says otherwise, or the file's own words are wrong.
    """
    eps = file.entry.get("layer_norm_eps", 1e-6)
    name = file.entry.get("activation", "gelu")
    if not isinstance(eps, float) or not 0 < eps < 0.1 or name not in ACTIVATIONS.values():
        raise UserError(
            f"{file.name} has an invalid description: layer_norm_eps={eps!r}, activation={name!r}"
        )
    for option, own in (("num_heads", config.num_heads), ("eps", eps), ("activation", name)):
        other = getattr(wanted.given, option)
        if other is not None and other != own:
            raise UserError(
                f"{file.name} was made with {option}={own}, not {other}; leave "
                f"--{option.replace('_', '-')} out"
            )
    resample = wanted.img_size is not None
    return Settled(config.num_heads, eps, name, config.image_shape, False, resample)


def _read(path: str | os.PathLike[str]) -> _File:
    """The file that a name stands for, its content, and what is said about it."""
    file = locate(os.fspath(path))
    if not isinstance(file, Path):
        return _File(file.name, file.tensors, {}, file.stated)
    content, entry = read_weights(file)
    if isinstance(content, dict) and isinstance(content.get(ENTRY), dict):
        entry = content[ENTRY]
    plugins.load_recorded(_plugins_of(entry))
    if "model" in entry:
        return _File(str(file), content, entry, Stated())
    return _File(str(file), content, entry, stated_beside(file).under(stated_inside(content)))


def _plugins_of(entry: dict[str, Any]) -> list[str]:
    """The plugins that a run was made with, as its checkpoints and exports say."""
    config = entry.get("config")
    named = (config if isinstance(config, dict) else entry).get("plugins")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _for_channels(images: dict[str, Any], channels: int, path: str) -> dict[str, Any]:
    """One mean for all channels, or one for each."""
    for name in ("mean", "std"):
        values = images.get(name)
        if values is None:
            continue
        if len(values) not in (1, channels):
            raise UserError(
                f"{path} takes {channels} channels, and {name} has {len(values)} values"
            )
        images[name] = values * channels if len(values) == 1 else values
    return images


def _with_images(entry: dict[str, Any], images: dict[str, Any]) -> dict[str, Any]:
    """The file's own description, with what is known of its images from elsewhere."""
    if not images:
        return entry
    data = entry.get("data")
    return {**entry, "data": {**(data if isinstance(data, dict) else {}), **images}}


@functools.cache
def _warn(text: str) -> None:
    """Once a process, though a command may load the same weights several times."""
    logging.getLogger(__name__).warning("%s", text)


def _check_variant(config: ConViTConfig, variant: str | None, path: str) -> None:
    actual = variant_of(config)
    if variant is not None and variant != actual:
        raise UserError(f"{path} holds {describe(config)}, not {variant}")


def _own_classifier(file: _File) -> dict[str, Tensor]:
    """The classifier of a supervised run of ours, which VISSL keeps as a head behind the trunk."""
    if not is_classifier(file.entry.get("method")) or "classy_state_dict" not in file.content:
        return {}
    heads = file.content["classy_state_dict"]["base_model"]["model"]["heads"]
    return {"head.weight": heads["0.weight"], "head.bias": heads["0.bias"]}
