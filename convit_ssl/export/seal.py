"""A checksum inside our safetensors files, over the tensors and what is said about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.errors import UserError
from convit_ssl.models.fingerprint import weights_fingerprint

KEY = "sha256"  # in our JSON of the file's header


def seal(tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry in types of JSON, with the checksum of itself and of the tensors."""
    plain = json.loads(json.dumps(dict(entry), sort_keys=True, default=str))
    plain.pop(KEY, None)
    return {**plain, KEY: _digest(tensors, plain)}


def check_seal(path: Path, tensors: Mapping[str, Tensor], entry: dict[str, Any]) -> None:
    """Compare the checksum of a file that has one.

    Raises:
        UserError: tensors or entry are not those that were written.
    """
    plain = {key: value for key, value in entry.items() if key != KEY}
    if KEY in entry and entry[KEY] != _digest(tensors, plain):
        raise _damaged(path)


def check_fingerprint(path: str, model: nn.Module, entry: Mapping[str, Any]) -> None:
    """Compare a model with the fingerprint in a file from before there were checksums.

    Raises:
        UserError: its weights are not those that were written.
    """
    stated = entry.get("fingerprint")
    if KEY not in entry and stated is not None and stated != weights_fingerprint(model):
        raise _damaged(path)


def _damaged(path: Path | str) -> UserError:
    return UserError(
        f"{path} is damaged (its content does not match its checksum); copy it again, or export "
        "the run once more"
    )


def _digest(tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(entry), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
