"""The network of an experiment: what a plan checks of it, and how VISSL is told of it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.words import hint
from convit_ssl.errors import UserError
from convit_ssl.methods import get_method
from convit_ssl.models import VARIANTS, ConViTConfig, create_config
from convit_ssl.models.trunks import (
    REGULARISATION,
    TIMM,
    TRUNKS,
    AnyConfig,
    OtherTrunk,
    TrunkConfig,
    is_other,
    measured,
    single_position_strided,
    sketch,
)
from convit_ssl.options import items
from convit_ssl.schema_views import CropOptions

# Options of the section `trunk` that mean something to networks other than ConViT.
OF_OTHERS = (
    "variant", "in_chans", "global_pool", "pretrained", "freeze_patch_embed", *REGULARISATION,
)  # fmt: skip
ONLY_TIMM = "is for networks of timm; weights=PATH starts any other from a checkpoint"


def check_variant(tree: Draft) -> None:
    """Refuse an unknown trunk.

    Raises:
        UserError: there is none of this name.
    """
    from convit_ssl import plugins

    name, known = str(tree.trunk.variant), [*VARIANTS, *TRUNKS]
    if name not in known and not is_other(name):
        near = hint(name, known)
        raise UserError(
            f"unknown trunk.variant {name!r}{near} (available: {', '.join(known)}, and {TIMM}NAME)"
            f"{plugins.advice()}"
        )


def check_other(tree: Draft, explicit: frozenset[str]) -> None:
    """Refuse what a network other than ConViT does not have, before anything is computed.

    Regularisation that an experiment brings along is left out where the network has none.

    Raises:
        UserError: options that it does not have, or a network that cannot be built.
    """
    name = tree.trunk.variant
    if not is_other(name):
        if tree.trunk.pretrained is not None:
            raise UserError(f"trunk.pretrained={tree.trunk.pretrained} {ONLY_TIMM}")
        return
    if get_method(tree.method.name).all_tokens:
        raise UserError(
            f"method={tree.method.name} learns from patch features, and trunk={name} "
            "returns one feature vector per image; use a ConViT or a DeiT, such as "
            "trunk=convit_small"
        )
    pretrained = tree.trunk.pretrained
    if pretrained and not str(name).startswith(TIMM):
        raise UserError(f"trunk.pretrained={pretrained} {ONLY_TIMM}")
    if isinstance(pretrained, str):
        path = os.path.abspath(os.path.expanduser(pretrained))
        if not os.path.exists(path):
            raise UserError(f"trunk.pretrained={pretrained}: there is no such file")
        tree.trunk.pretrained = path
    network = sketch(_config(tree, explicit))
    assert isinstance(network, OtherTrunk)
    needless = ["run.fsdp"] if tree.run.fsdp else []
    needless += sorted(
        key
        for key in explicit
        if key.startswith("trunk.") and (key[6:] not in OF_OTHERS or key[6:] in network.ignored)
    )
    if tree.trunk.freeze_patch_embed and network.patch_projection() is None:
        needless += ["trunk.freeze_patch_embed"] * ("trunk.freeze_patch_embed" in explicit)
        tree.trunk.freeze_patch_embed = False
    if needless:
        raise UserError(f"trunk={name} has no {', '.join(needless)}; leave it out")
    for key in network.ignored & set(REGULARISATION):
        setattr(tree.trunk, key, 0.0)
    if tree.optim.accumulate > 1 and network.normalises_batches():
        raise UserError(
            f"trunk={name} uses batch normalisation, so optim.accumulate={tree.optim.accumulate} "
            "would change the result; set optim.accumulate=1 and lower optim.batch_size"
        )
    network.set_grad_checkpointing(bool(tree.run.grad_checkpointing))
    if tree.optim.layer_decay is not None:
        network.layers()


def patch_size(tree: Draft, explicit: frozenset[str] = frozenset()) -> int:
    """What sides of crops must be a multiple of, in pixels; 1 where the network does not say."""
    if is_other(tree.trunk.variant):
        return _patch_of(sketch(_config(tree, explicit)))
    return int(tree.trunk.patch_size or create_config(tree.trunk.variant).patch_size)


def least_side(tree: Draft) -> int:
    """The side in pixels that becomes a single position in the last map of a convnet of timm."""
    network: Any = sketch(_config(tree, frozenset()))
    stages = getattr(network.network, "feature_info", None)
    last = stages[-1] if isinstance(stages, list) and stages else {}
    return int(last.get("reduction", 1)) if isinstance(last, dict) else 1


def network_config(tree: Draft, explicit: frozenset[str]) -> AnyConfig:
    """The network's configuration; one that is not a ConViT is also written into VISSL's tree.

    Raises:
        UserError: options that do not fit, or crops of a size that the network cannot take.
    """
    if not is_other(tree.trunk.variant):
        return _convit(tree)
    asked = _config(tree, explicit)
    asked = dataclasses.replace(asked, patch_size=_patch_of(sketch(asked)))
    config = measured(asked, tuple(sides_of(tree.crops)))
    options: dict[str, Any] = {k.upper(): v for k, v in dataclasses.asdict(config).items()}
    options["GRAD_CHECKPOINTING"] = bool(tree.run.grad_checkpointing)
    options["FREEZE_PATCH_EMBED"] = bool(tree.trunk.freeze_patch_embed)
    OmegaConf.update(tree, "config.MODEL.TRUNK.NAME", "convit_ssl_other", force_add=True)
    OmegaConf.update(tree, "config.MODEL.TRUNK.CONVIT_SSL_OTHER", options, force_add=True)
    return config


def exact_precision(
    asked: str, chosen: str, trunk: AnyConfig, sides: Sequence[int], device: str
) -> str:
    """The precision of forward passes, where a network's gradients are right in it.

    In bfloat16 on a CPU, PyTorch's gradient of a convolution with a stride over a map of one
    position holds arbitrary numbers (findings/torch_bf16_stride_1x1.sh): a ResNet's on images of
    16 px and smaller.

    Args:
        asked: by the user, or "auto".
        chosen: what that is on this device.
        trunk: the network.
        sides: of all crops, in pixels.
        device: cpu or cuda.

    Raises:
        UserError: the user asked for bf16, and it is not right.
    """
    if (chosen, device) != ("bf16", "cpu") or not isinstance(trunk, TrunkConfig):
        return chosen
    wrong = [side for side in sides if single_position_strided(trunk, side)]
    if not wrong:
        return chosen
    if asked == "auto":
        return "fp32"
    raise UserError(
        f"run.precision=bf16: crops of {wrong[0]} px become maps of one position before the last "
        f"stride of trunk={trunk.trunk}, and on a CPU PyTorch's bfloat16 gradients are wrong "
        "there; use run.precision=fp32, or larger crops (crops.global_size)"
    )


def sides_of(crops: CropOptions) -> list[int]:
    """Sides in pixels of all kinds of crops."""
    return [int(crops.global_size), *([int(crops.local_size)] if crops.local_count else [])]


def fit_probes(tree: Draft, trunk: AnyConfig) -> None:
    """Leave out the features that a frozen network does not have."""
    if not get_method(tree.method.name).frozen_trunk:
        return
    plain = trunk.depth - trunk.num_gpsa_layers if isinstance(trunk, ConViTConfig) else 0
    model = tree.config.MODEL
    names = [str(head[1].features) for head in model.HEAD.PARAMS]
    for index in reversed(range(len(names))):
        joined = re.search(r"concatCLS(\d+)", names[index])
        absent = joined is not None and int(joined[1]) > plain
        if absent or (isinstance(trunk, TrunkConfig) and names[index] != "lastCLS"):
            del model.HEAD.PARAMS[index]
            del model.FEATURE_EVAL_SETTINGS.LINEAR_EVAL_FEAT_POOL_OPS_MAP[index]


def _config(tree: Draft, explicit: frozenset[str]) -> TrunkConfig:
    given: dict[str, Any] = {name: float(getattr(tree.trunk, name)) for name in REGULARISATION}
    if "trunk.global_pool" in explicit:  # else the network's own way
        given["global_pool"] = str(tree.trunk.global_pool)
    return TrunkConfig(
        trunk=str(tree.trunk.variant),
        img_size=int(tree.crops.global_size),
        in_chans=int(tree.trunk.in_chans),
        **given,
    )


def _patch_of(network: Any) -> int:
    """Of a network that cuts images into patches without overlap."""
    embedding = getattr(network.network, "patch_embed", None)
    found = getattr(embedding, "patch_size", 1)
    patch = max(found) if isinstance(found, tuple) else int(found)
    projection = getattr(embedding, "proj", None)
    stride = getattr(projection, "stride", None)
    return patch if stride in ((patch, patch), None) else 1


def _convit(tree: Draft) -> ConViTConfig:
    """Build the network's configuration, so that its refusals come early."""
    names = {field.name for field in dataclasses.fields(ConViTConfig)}
    overrides = {
        key: value for key, value in items(tree.trunk) if key in names and value is not None
    }
    try:
        config = create_config(
            tree.trunk.variant, **overrides, img_size=tree.crops.global_size, num_classes=0
        )
    except ValueError as error:
        raise UserError(f"trunk: {error}") from None
    if tree.trunk.impulses and not config.num_gpsa_layers:
        raise UserError(
            f"trunk.impulses=true places the heads of GPSA layers, and trunk={tree.trunk.variant} "
            "has none; leave it out, or use a ConViT"
        )
    return config
