"""Where a figure comes from: run, checkpoint, data, commit, versions, command."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from convit_ssl.analysis.runs import Checkpoint, Run, find_value

_OF_MODEL = ("method", "variant", "epoch", "commit", "weights", "fingerprint")


def provenance(run: Run, model: nn.Module | None, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What is known, in the order to show it; text, numbers and small dictionaries.

    Args:
        run: gives folder and configuration.
        model: its `provenance`, as the loader left it, is used.
        checkpoint: the file the model was read from.
    """
    stored = getattr(model, "provenance", None)
    stored = stored if isinstance(stored, Mapping) else {}
    entry = stored.get("entry") if isinstance(stored.get("entry"), Mapping) else {}
    assert isinstance(entry, Mapping)
    found: dict[str, Any] = {"run": str(run.folder.resolve())}
    found.update({key: stored[key] for key in _OF_MODEL if stored.get(key) is not None})
    data = stored.get("data")
    if isinstance(data, Mapping):
        parts = [str(data["name"])] if "name" in data else []
        parts += [f"{data['images']} images"] if "images" in data else []
        found["data"] = ", ".join(parts) or "unknown"
        found["data hash"] = data.get("digest") or "not recorded"
    elif data is not None:
        found["data"] = str(data)
    versions = entry.get("versions")
    if isinstance(versions, Mapping):
        found["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    found["hardware"] = _text(entry.get("hardware")) or "not recorded"
    if checkpoint is not None:
        found["checkpoint"] = str(checkpoint.path.resolve())
        found["checkpoint sha256"] = _sha256(checkpoint.path)
    if model is not None:
        found["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    found["command to train it again"] = _command(run, entry)
    notes = stored.get("notes")
    if notes:
        found["notes"] = "; ".join(map(str, notes))
    return found


def _command(run: Run, entry: Mapping[str, Any]) -> str:
    """The recorded command, or one that names the settings that matter most."""
    recorded = _text(entry.get("command"))
    if recorded:
        return recorded
    experiment = run.config.get("experiment")
    if not isinstance(experiment, str):
        return "not recorded"
    words = ["convit-ssl", "train", f"config={experiment}"]
    data, trunk = run.config.get("data"), run.config.get("trunk")
    if isinstance(data, Mapping) and data.get("name"):
        words.append(f"data={data['name']}")
    if isinstance(trunk, Mapping) and trunk.get("variant"):
        words.append(f"trunk={trunk['variant']}")
    epochs = find_value({"optim": run.config.get("optim")}, "epochs")
    words += [f"optim.epochs={epochs}"] if epochs else []
    words += [f"seed={run.config['seed']}"] if run.config.get("seed") is not None else []
    return f"{shlex.join(words)} (all settings: see the configuration)"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items() if entry)
    if isinstance(value, (list, tuple)):
        return shlex.join(map(str, value))
    return "" if value is None else str(value)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
