"""Is this the run that the checkpoint belongs to?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convit_ssl.checksums import stated_damage
from convit_ssl.engines.checkpoints.files import epochs_done, read_state, sorted_checkpoints
from convit_ssl.engines.options.describe import all_options
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder

# May differ between two starts of one run: where and how it runs, not what it computes.
FREE = (
    "plugins",
    "run.",
    "watch.",
    "derived.",
    "facts.folder",
    "data_dir",
    "data.workers",
    "data.max_corrupt",
)
LISTED = 6
# Keys that nobody gave, and what they say.
WORDS = {"facts.digest": "which images there are (facts.digest)"}


def finished(folder: Path, checkpoints: Path, plan: Plan) -> bool:
    """Whether a run is over: trained to its last epoch, and its result written."""
    trained = epochs_done(checkpoints) >= plan.settings.optim.epochs
    if not trained or not RunFolder(folder).finished():
        return False
    return stated_damage(sorted_checkpoints(checkpoints)[-1]) is None


def check_same_run(path: Path, plan: Plan) -> None:
    """Refuse to resume with options other than those a run began with, unless they are named.

    ``run.accept_changes=[optim.lr, data]`` accepts a key, or all keys below it.

    Raises:
        UserError: names the differing keys, with both values.
    """
    written = flat(_entry(path)["config"])
    now = flat(json.loads(json.dumps(plan.options)))
    # Options that older runs do not record: a new one's default is what was done before it.
    options = all_options(str(now.get("method.name")))
    younger = {option.key: option.default for option in options if option.key in now}
    before = {**younger, **written}
    accepted = [str(key) for key in plan.settings.run.accept_changes]
    changed = [
        key
        for key in sorted({*before, *now}, key=lambda key: (key != "experiment", key))
        if before.get(key) != now.get(key)
        and not key.startswith(FREE)
        and not any(f"{key}.".startswith(f"{name}.") for name in accepted)
    ]
    differing = [
        f"{WORDS.get(key, key)}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed
    ]
    if differing:
        more = f" and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
        ways = ["Give this run its own folder with run.name=..."]
        ways += ["start over there with run.overwrite=true"]
        if "experiment" not in changed and len(changed) <= LISTED:
            ways += [f"continue with the new values: run.accept_changes=[{','.join(changed)}]"]
        raise UserError(
            f"{path.parent.parent} holds a run with different options "
            f"({'; '.join(differing[:LISTED])}"
            f"{more}). {', '.join(ways[:-1])}, or {ways[-1]}"
        )


def steps_taken(state: dict[str, Any]) -> int:
    """Optimiser steps behind a checkpoint, whatever the batches were."""
    return int(state["convit_ssl"].get("steps_taken", state["iteration"]))


def position(state: dict[str, Any]) -> tuple[int, int] | None:
    """Epoch, and images of it that all processes together have seen, of a checkpoint."""
    found = state["convit_ssl"].get("position")
    return (int(found[0]), int(found[1])) if found else None


def iteration_at(epoch: int, seen: int, images: int, batch: int) -> int:
    """Optimiser steps done at a position, counted so that the epoch ends on a whole one.

    With the batch the run began with this is the number of steps that were taken. With another
    one, what is left of the epoch decides: each image still comes once, but for the last few
    that fill no batch.

    Args:
        epoch: whole epochs that are done.
        seen: images of the next one that were seen.
        images: of an epoch.
        batch: images per step from now on.
    """
    return (epoch + 1) * (images // batch) - (images - seen) // batch


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted keys."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    leaves: dict[str, Any] = {}
    for key, child in tree.items():
        leaves |= flat(child, f"{prefix}{key}.")
    return leaves


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = read_state(path, mmap=True)["convit_ssl"]
    return entry
