"""A trunk in one file of ours, with all that is known about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.export.files import (
    ENTRY,
    described,
    own_tensors,
    write_safetensors,
    write_torch,
)
from convit_ssl.export.load import activation, layer_norm_eps
from convit_ssl.models import ConViT
from convit_ssl.models.fingerprint import weights_fingerprint

FORMATS = (".safetensors", ".torch", ".pth")


def describe_weights(model: ConViT) -> dict[str, Any]:
    """What a file says about itself: enough to build the model and to know where it came from."""
    provenance = getattr(model, "provenance", {})
    kept = ("variant", "weights", "method", "epoch", "data", "commit")
    source = provenance.get("entry") or {}
    known = {key: provenance.get(key) for key in kept}
    if isinstance(known["data"], dict):  # where it lay is nobody's business
        known["data"] = {key: value for key, value in known["data"].items() if key != "folder"}
    return {
        "format": 1,
        "model": dataclasses.asdict(model.config),
        "layer_norm_eps": layer_norm_eps(model),
        "activation": activation(model),
        "fingerprint": weights_fingerprint(model),
        **known,
        **({"versions": source["versions"]} if "versions" in source else {}),
    }


def save_trunk(model: ConViT, path: str | Path) -> None:
    """Write a trunk whole or not at all; `load_trunk` reads it back as it was.

    Args:
        model: the trunk.
        path: ends in .safetensors; .torch for the layout of training checkpoints, which starts
            a run in VISSL; or .pth for bare official keys, with the description where other
            libraries do not look.

    Raises:
        UserError: another ending, or a folder that cannot be written.
    """
    path = Path(path)
    tensors, entry = own_tensors(model.state_dict()), describe_weights(model)
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, entry)
    elif path.suffix == ".torch":
        state = {"base_model": {"model": {"trunk": tensors, "heads": {}}}}
        write_torch(path, {"classy_state_dict": state, ENTRY: entry})
    elif path.suffix == ".pth":
        write_torch(path, described(tensors, entry))
    else:
        raise UserError(f"{path}: the name must end in {', '.join(FORMATS)}")
