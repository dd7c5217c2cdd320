"""Checkpoints of networks that are not ConViTs: read back, and written for other libraries."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.files import read_weights
from convit_ssl.export.layouts import (
    FoundTrunk,
    check_tensors,
    choose,
    role_of,
    state_dicts,
    without_wrappers,
)
from convit_ssl.export.sources import locate, say_fetching
from convit_ssl.models.fingerprint import weights_fingerprint
from convit_ssl.models.trunks import TIMM, OtherTrunk, TrunkConfig, sketch
from convit_ssl.reading import printable

NETWORK = "network."
"""Before the keys of the network itself, in our checkpoints."""


def is_described(entry: Mapping[str, Any]) -> bool:
    """Whether a file says that its network is one that is not a ConViT."""
    described = entry.get("model")
    return isinstance(described, dict) and "trunk" in described


def config_of(entry: Mapping[str, Any], path: str) -> TrunkConfig:
    """What a file says of its network.

    Raises:
        UserError: it says something that no network is built from.
    """
    described = dict(entry["model"])
    size = described.get("img_size")
    described["img_size"] = tuple(size) if isinstance(size, list) else size
    kinds = {field.name: type(field.default) for field in dataclasses.fields(TrunkConfig)}
    sides = described["img_size"]
    sides = sides if isinstance(sides, tuple) else (sides,)
    fits = all(isinstance(described.get(n), int) for n in ("in_chans", "embed_dim", "patch_size"))
    whole = all(isinstance(side, int) and 0 < side < 2**16 for side in sides)
    if not set(described) <= set(kinds) or not fits or not whole:
        raise UserError(
            f"{path} has an invalid description of its network: {printable(str(described))}"
        )
    return TrunkConfig(**described)


def other_trunk(
    content: Any,
    entry: dict[str, Any],
    path: str,
    which: str = "teacher",
    img_size: int | tuple[int, int] | None = None,
) -> OtherTrunk:
    """The network that a checkpoint describes, strictly, in evaluation mode.

    Args:
        content: of the file.
        entry: what it says of itself.
        path: for messages.
        which: of its weights, as `load_trunk` has it.
        img_size: to evaluate at, in place of the size that it was trained at.

    Raises:
        UserError: the network is not there, or tensors are missing or of another shape.
    """
    config = config_of(entry, path)
    found, tensors = tensors_for(content, config, path, which)
    with torch.random.fork_rng(devices=[]):
        model = OtherTrunk(config).eval()
    model.network.load_state_dict(tensors, strict=True)
    if img_size is not None:
        model.config = dataclasses.replace(config, img_size=img_size)
        _try(model, path)
    known = {key: entry.get(key) for key in ("variant", "method", "epoch", "data", "commit")}
    model.provenance = {
        **known,
        "path": path,
        "weights": entry.get("weights") or found.role,
        "config": dataclasses.asdict(model.config),
        "fingerprint": weights_fingerprint(model),
        "layout": "convit_ssl",
        "notes": [],
        "guesses": [],
        "entry": entry,
    }
    return model


def describe_other(model: OtherTrunk) -> dict[str, Any]:
    """What a file says about itself: enough to build the network, and where it came from."""
    provenance: dict[str, Any] = vars(model).get("provenance", {})
    source = provenance.get("entry") or {}
    known = {
        key: provenance.get(key)
        for key in ("variant", "weights", "method", "epoch", "data", "commit")
    }
    if isinstance(known["data"], dict):  # where it lay is nobody's business
        known["data"] = {key: value for key, value in known["data"].items() if key != "folder"}
    named = (source.get("config") or source).get("plugins") or []
    return {
        "format": 1,
        "model": dataclasses.asdict(model.config),
        "fingerprint": weights_fingerprint(model),
        **known,
        **({"plugins": list(named)} if named else {}),
    }


def tensors_for(
    content: Any, config: TrunkConfig, path: str, which: str
) -> tuple[FoundTrunk, dict[str, Tensor]]:
    """The tensors of a network in a file of ours, or in one of the network's own library.

    Raises:
        UserError: they are not there, incomplete, or of another shape.
    """
    network: Any = sketch(config)
    state = network.network.state_dict()
    own = {without_wrappers(key): value for key, value in state.items()}
    found = _find(content, own)
    if not found:
        raise UserError(f"{path} holds no {config.trunk}: there is no {next(iter(own), 'weight')}")
    chosen = choose(found, which, path)
    check_tensors(chosen.tensors, path)
    given = chosen.tensors
    faults = [f"{key} is missing" for key in own if key not in given]
    faults += [
        f"{key} has shape {tuple(given[key].shape)} and not {tuple(value.shape)}"
        for key, value in own.items()
        if key in given and given[key].shape != value.shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{path} does not fit {config.trunk}: {'; '.join(faults[:3])}{more}")
    return chosen, {key: given[without_wrappers(key)] for key in state}


def start_from(trunk: OtherTrunk, path: str, which: str = "teacher") -> None:
    """Load weights into a network: those of a run of ours, or a file of its own library.

    Of a file of timm's, position embeddings and the first convolution are adapted to the size and
    the channels of the images, and the classifier is left out, as timm does it.

    Raises:
        UserError: they do not fit.
    """
    file = locate(path)
    content, _ = read_weights(file) if isinstance(file, Path) else (file.tensors, {})
    if trunk.config.trunk.startswith(TIMM):
        content = _adapted(trunk, content)
    _, tensors = tensors_for(content, trunk.config, path, which)
    trunk.network.load_state_dict(tensors, strict=True)


def _adapted(trunk: OtherTrunk, content: Any) -> Any:
    """A bare state dict of timm's, as its own code changes it for this network."""
    first = next(iter(trunk.network.state_dict()), "")
    if not isinstance(content, dict) or first not in content:
        return content
    from timm.models import adapt_input_conv

    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    cfg: dict[str, Any] = getattr(trunk.network, "pretrained_cfg", None) or {}
    firsts = cfg.get("first_conv") or ()
    for name in (firsts,) if isinstance(firsts, str) else firsts:
        key = f"{name}.weight"
        if key in tensors:
            tensors[key] = adapt_input_conv(trunk.config.in_chans, tensors[key])
    change = getattr(sys.modules[type(trunk.network).__module__], "checkpoint_filter_fn", None)
    if change is not None:
        tensors = change(tensors, trunk.network)
    return tensors


def start_published(trunk: OtherTrunk) -> None:
    """Load the weights that timm publishes for a network.

    Raises:
        UserError: there are none, or they cannot be fetched.
    """
    import timm

    name = trunk.config.trunk.removeprefix(TIMM)
    say_fetching(name)
    given: dict[str, Any] = (
        {"img_size": trunk.config.img_size} if "img_size" not in trunk.ignored else {}
    )
    try:
        published = timm.create_model(
            name, pretrained=True, num_classes=0, in_chans=trunk.config.in_chans, **given
        )
    # Whatever goes wrong between here and a hub, the user needs the name and the reason.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"the weights of timm:{name} could not be fetched ({type(error).__name__}: {reason}); "
            "without a network, download the file elsewhere and give trunk.pretrained=PATH"
        ) from error
    trunk.network.load_state_dict(published.state_dict(), strict=True)


def _find(content: Any, own: Mapping[str, Tensor]) -> list[FoundTrunk]:
    """Every place in a file where a network of these keys lies, with its role."""
    found = []
    first = next(iter(own), "")
    for place, tensors in state_dicts(content):
        ours = {key[: -len(first)] for key in tensors if key.endswith(f".{NETWORK}{first}")}
        ours |= {NETWORK} if NETWORK + first in tensors else set()
        prefixes = ours or ({""} if first in tensors else set())
        for prefix in sorted(prefixes):
            inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            words = [word for word in (*place, *prefix.split(".")) if word]
            where = ".".join(words) or "the top level"
            found.append(FoundTrunk(role_of(words), where, inside))
    if any(trunk.role == "teacher" for trunk in found):
        for trunk in found:
            trunk.role = "student" if trunk.role == "model" else trunk.role
    return found


def _try(model: OtherTrunk, path: str) -> None:
    height, width = model.config.image_shape
    try:
        with torch.inference_mode():
            model(torch.zeros(1, model.config.in_chans, height, width))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1][:200]
        raise UserError(f"{path} cannot take images of {height} x {width} px: {reason}") from error
