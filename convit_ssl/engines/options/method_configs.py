"""Experiments of the methods that have no YAML file: composed from the method's own description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS, Method, get_method, self_supervised

GENERIC = "config=convit_ssl"


def offer_methods(*folders: Path) -> None:
    """Let Hydra find ``method=NAME`` and ``config=convit_NAME`` of every registered method.

    Args:
        folders: whose files take the place of what is offered here.
    """
    store = ConfigStore.instance()
    for name, method in METHODS.items():
        offered = {"method": (name, {"method": {"name": name}})}
        if not method.labelled:
            offered["config"] = (f"convit_{name}", _experiment(method))
        for group, (file, node) in offered.items():
            store.repo.get(group, {}).pop(f"{file}.yaml", None)
            if not any((folder / group / f"{file}.yaml").is_file() for folder in folders):
                store.store(file, node, group=group, package="_global_")


def named_experiment(choices: Sequence[str]) -> list[str]:
    """``config=convit_ssl method=NAME`` as the experiment of that method.

    Raises:
        UserError: no method is given, or an unknown one.
    """
    if GENERIC not in choices:
        return list(choices)
    name = next((choice[7:] for choice in choices if choice.startswith("method=")), None)
    if name is None:
        raise UserError(
            f"{GENERIC} needs a method; add method=NAME (available: {', '.join(self_supervised())})"
        )
    others = [choice for choice in choices if choice not in (GENERIC, f"method={name}")]
    return [f"config=convit_{get_method(name).name}", *others]


def _experiment(method: type[Method[Any]]) -> dict[str, Any]:
    groups = {"/data": "imagenet", "/trunk": "convit_small", "/method": method.name}
    listed = [*({group: choice} for group, choice in groups.items())]
    run = method.published
    crops = {
        "global_count": method.global_crops,
        "global_scale": [method.smallest_share, 1.0],
        "local_count": method.local_crops,
        "local_scale": [0.05, method.smallest_share],
    }
    optim = {
        "epochs": run.epochs,
        "batch_size": run.batch_size,
        "warmup_epochs": run.warmup_epochs,
    }
    given = method.experiment
    return {
        "defaults": ["/vissl/base", *listed, {"/optim": "adamw"}, {"/run": "gpu8"}, "_self_"],
        "experiment": f"convit_{method.name}",
        "crops": {**crops, **given.get("crops", {})},
        "trunk": dict(given.get("trunk", {})),
        "optim": {**optim, **given.get("optim", {})},
    }
