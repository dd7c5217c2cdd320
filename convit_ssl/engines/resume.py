"""Is this the run that the checkpoint belongs to?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from convit_ssl.engines.plan import Plan
from convit_ssl.errors import UserError

# May differ between two starts of one run: where and how it runs, not what it computes.
FREE = ("run.", "watch.", "derived.", "facts.folder", "data_dir", "data.workers", "data.max_corrupt")
LISTED = 6


def finished(path: Path, plan: Plan) -> bool:
    """Whether the checkpoint is the last of its run."""
    entry = _entry(path)
    return bool(entry["epoch"] >= plan.options["optim"]["epochs"])


def check_same_run(path: Path, plan: Plan) -> None:
    """Refuse to go on with other options than those a run began with.

    Raises:
        UserError: names the differing keys, with both values.
    """
    before = flat(_entry(path)["config"])
    now = flat(json.loads(json.dumps(plan.options)))
    differing = [
        f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if differing:
        more = f" and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
        raise UserError(
            f"{path.parent.parent} holds a run with other options ({'; '.join(differing[:LISTED])}"
            f"{more}). Give this one its own folder with run.name=..., or start afresh there with "
            "run.overwrite=true"
        )


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted keys."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    leaves: dict[str, Any] = {}
    for key, child in tree.items():
        leaves |= flat(child, f"{prefix}{key}.")
    return leaves


def _entry(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    entry: dict[str, Any] = state["convit_ssl"]
    return entry
