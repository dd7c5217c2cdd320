"""The checkpoint that an experiment starts from or learns from, and what follows from it."""

from __future__ import annotations

import dataclasses
from typing import Any

from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.options.channels import KEPT, same_channels
from convit_ssl.engines.options.draft import Draft
from convit_ssl.errors import UserError
from convit_ssl.models import VARIANTS, ConViTConfig, create_config
from convit_ssl.models.from_vit import GATE_OF_VIT
from convit_ssl.models.trunks import Network, OtherTrunk, is_other
from convit_ssl.weights_settings import Given, loading_options

OF_VIT = ("embed_dim", "depth", "num_heads")  # what a ConViT shares with the ViT it starts from


def check_teacher(path: str | None, classes: int, settings: Given = None) -> None:
    """The classifier that a supervised run distils from decides among the same classes."""
    if not path:
        return
    from convit_ssl.export import load_trunk

    known = load_trunk(path, **loading_options(settings)).config.num_classes
    if not known:
        raise UserError(
            f"method.distill_from={path} contains no classifier; give a checkpoint of "
            f"convit_supervised or convit_finetune, or released weights with their head"
        )
    if known != classes:
        raise UserError(
            f"method.distill_from={path} has {known} classes, but the images have {classes}; give "
            f"a classifier that was trained on the same classes"
        )


def follow_weights(tree: Draft, explicit: frozenset[str]) -> None:
    """Take the network's shape and the images' scale from the weights that the run starts from."""
    if not tree.weights:
        refuse_settings(tree, "weights_settings", "weights=PATH")
        return
    from convit_ssl.export.load import check_activation, load_network, say_how_to_set

    if is_other(tree.trunk.variant):
        _follow_other(tree, explicit)
        return
    loaded = load_network(tree.weights, weights=tree.weights_from, **_said(tree, explicit))
    if isinstance(loaded, OtherTrunk):
        if "trunk" in explicit or "trunk.variant" in explicit:
            raise UserError(
                f"{tree.weights} holds {loaded.config.trunk}, but trunk={tree.trunk.variant} is "
                "asked for; leave trunk out"
            )
        tree.trunk.variant = loaded.config.trunk
        _follow_other(tree, explicit)
        return
    check_activation(loaded, tree.weights)
    say_how_to_set(loaded, tree.weights)
    config = loaded.config
    _follow_images(tree, explicit, loaded)
    if tree.trunk.impulses:
        raise UserError(
            f"trunk.impulses=true is for new networks, and {tree.weights} has trained heads; leave "
            "it out"
        )
    if _from_vit(tree, explicit, config):
        _follow_vit(tree, explicit, config)
        return
    if "trunk.gate_start" in explicit:
        raise UserError(
            f"trunk.gate_start={tree.trunk.gate_start} sets the gates of new GPSA layers; "
            f"{tree.weights} has its own, or no such layers; leave it out"
        )
    _follow_variant(tree, explicit, config, vars(loaded)["provenance"].get("variant"))
    _follow_fields(tree, explicit, config)


def _follow_variant(
    tree: Draft, explicit: frozenset[str], config: ConViTConfig, variant: str | None
) -> None:
    """Take over the named size of the weights, or compare what was asked for with them."""
    from convit_ssl.export.load import describe, shape

    if variant in VARIANTS and variant != tree.trunk.variant:
        if "trunk" in explicit or "trunk.variant" in explicit:
            raise UserError(
                f"{tree.weights} holds a {variant}, but trunk={tree.trunk.variant} was requested; "
                f"use trunk={variant}, or leave trunk out"
            )
        tree.trunk.variant = variant
    elif "trunk" in explicit:
        asked = shape(create_config(tree.trunk.variant))
        asked = {
            k: getattr(tree.trunk, k) if f"trunk.{k}" in explicit else v for k, v in asked.items()
        }
        if asked != shape(config):
            raise UserError(
                f"{tree.weights} holds {describe(config)}, but trunk={tree.trunk.variant} was "
                f"requested; leave trunk out"
            )


def _follow_fields(
    tree: Draft, explicit: frozenset[str], config: ConViTConfig, own: tuple[str, ...] = ()
) -> None:
    """Take over the fields of a configuration, but for regularisation and those named.

    Raises:
        UserError: one was asked for that the weights were not made with.
    """
    regularisation = ("drop_rate", "attn_drop_rate", "drop_path_rate", "global_pool", "local_init")
    for name, value in dataclasses.asdict(config).items():
        key = f"trunk.{name}"
        if name in (*regularisation, *own) or not hasattr(tree.trunk, name):
            continue
        if name == "in_chans" and Reading.of(tree.data).native:
            continue  # it follows the images, and the patch embedding follows it
        given = getattr(tree.trunk, name)
        if key in explicit and given not in (None, value):
            raise UserError(
                f"{key}={given}, but {tree.weights} was made with {name}={value}; "
                f"leave {key} out, or start without weights"
            )
        setattr(tree.trunk, name, value)


def _from_vit(tree: Draft, explicit: frozenset[str], config: ConViTConfig) -> bool:
    """Whether a ConViT is asked for, by its GPSA layers, and the weights are a plain ViT's."""
    asked = explicit & {"trunk.num_gpsa_layers", "trunk.gate_start"}
    if config.num_gpsa_layers or not asked:
        return False
    layers = tree.trunk.num_gpsa_layers
    if layers is None:
        layers = create_config(tree.trunk.variant).num_gpsa_layers
    return bool(layers)


def _follow_vit(tree: Draft, explicit: frozenset[str], config: ConViTConfig) -> None:
    """Give a ConViT the shape of a plain ViT, whose weights it starts from.

    Raises:
        UserError: another shape is asked for, layers without gates, or more layers than there are.
    """
    from convit_ssl.export.load import describe

    trunk = tree.trunk
    asked = create_config(trunk.variant)
    trunk.num_gpsa_layers = trunk.num_gpsa_layers or asked.num_gpsa_layers
    if not trunk.use_gating:
        raise UserError(
            f"trunk.use_gating=false has no content half that {tree.weights} could start; leave it "
            "out, or start without weights"
        )
    limit = config.depth - (trunk.global_pool == "token")
    if trunk.num_gpsa_layers > limit:
        raise UserError(
            f"trunk.num_gpsa_layers={trunk.num_gpsa_layers}, but {tree.weights} has {config.depth} "
            f"layers, the last of which the class token needs; use at most {limit}"
        )
    fitting = [name for name, known in VARIANTS.items() if _same_shape(known, config)]
    if "trunk.variant" not in explicit and "trunk" not in explicit:
        trunk.variant = next(
            (name for name in fitting if VARIANTS[name].num_gpsa_layers), trunk.variant
        )
    elif trunk.variant not in fitting:
        raise UserError(
            f"{tree.weights} holds {describe(config)}, but trunk={trunk.variant} was requested; "
            "leave trunk out, and the ConViT takes the ViT's width, depth and heads"
        )
    own = ("num_gpsa_layers", "locality_strength", "use_gating", "init_std", "pos_embed_std")
    _follow_fields(tree, explicit, config, own)
    trunk.local_init = False  # from_vit places the heads, whatever their number
    if trunk.gate_start is None:
        trunk.gate_start = GATE_OF_VIT


def _same_shape(one: ConViTConfig, other: ConViTConfig) -> bool:
    """Whether a ConViT and a ViT differ in nothing that weights depend on but GPSA."""
    return all(getattr(one, name) == getattr(other, name) for name in OF_VIT)


def _said(tree: Draft, explicit: frozenset[str]) -> dict[str, Any]:
    """What the user says of the weights; the heads of the network to train are those of both."""
    said = loading_options(tree.weights_settings)
    if "trunk.num_heads" in explicit:
        said.setdefault("num_heads", tree.trunk.num_heads)
    return said


def refuse_settings(tree: Draft, section: str, needs: str) -> None:
    """Refuse what is said of a file where there is none.

    Raises:
        UserError: a setting is given.
    """
    said = loading_options(tree[section])
    name = next(iter(said.get("images", said)), None)
    if name is not None:
        raise UserError(
            f"{section}.{name} has no effect without a file of ViT weights; add {needs}"
        )


def _follow_images(tree: Draft, explicit: frozenset[str], loaded: Network) -> None:
    """Take over how the images of the weights were made, and which of them were taken."""
    from convit_ssl.export import reading_of

    provenance = vars(loaded)["provenance"]
    reading = reading_of(loaded)
    same = same_channels(reading, tree, explicit)
    for name, value in reading.describe().items():
        if name in KEPT and not same:
            continue
        if getattr(tree.data, name) is None or (value is True and f"data.{name}" not in explicit):
            setattr(tree.data, name, value)
    if same and reading.native:
        entry = (provenance.get("entry") or {}).get("data") or {}
        for name in ("mean", "std"):
            if getattr(tree.data, name) is None:
                setattr(tree.data, name, entry.get(name))
    roles = ("teacher", "student", "ema")
    if tree.weights_from in roles and provenance["weights"] in roles:
        tree.weights_from = provenance["weights"]  # a method without a teacher has a student only


def _follow_other(tree: Draft, explicit: frozenset[str]) -> None:
    """The same of a network that is not a ConViT; a file of its own library says nothing of it."""
    from convit_ssl.export.load import describes_other, load_network

    refuse_settings(tree, "weights_settings", f"a ViT's weights; {tree.trunk.variant} has its own")
    if tree.weights is None or not describes_other(tree.weights):
        return
    loaded = load_network(tree.weights, weights=tree.weights_from)
    assert isinstance(loaded, OtherTrunk)
    if loaded.config.trunk != tree.trunk.variant:
        raise UserError(
            f"{tree.weights} holds {loaded.config.trunk}, but trunk={tree.trunk.variant} is asked "
            f"for; use trunk={loaded.config.trunk}"
        )
    _follow_images(tree, explicit, loaded)
    if "trunk.in_chans" not in explicit:
        tree.trunk.in_chans = loaded.config.in_chans
