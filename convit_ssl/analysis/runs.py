"""A run folder as training leaves it: config.yaml, metrics.jsonl, checkpoints/."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit_ssl.analysis.metrics import Metrics, read_metrics
from convit_ssl.errors import UserError
from convit_ssl.reading import read_json, read_text, read_yaml
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import KEY, read_line, yaml_is_whole

_CHECKPOINT = re.compile(r"checkpoint_e(\d+)(?:_s(\d+))?\.torch$")
_GROUPS = ("data", "optim", "trunk", "method", "facts")
_GROUP_TYPES = (Mapping, str, type(None))  # a name alone, in older files


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, and the epochs it was written after."""

    path: Path
    epoch: int


@dataclass
class Run:
    """One training run, finished or not.

    Attributes:
        name: shown in legends; unique among the runs of a report.
        folder: where it lies.
        config: config.yaml as plain data; empty where it cannot be read.
        metrics: what it measured while training.
        checkpoints: oldest first; empty if there is none.
        planned_epochs: from the configuration, where it says so.
        problems: what is missing or damaged, one sentence each.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    metrics: Metrics
    checkpoints: list[Checkpoint]
    planned_epochs: float | None
    problems: list[str] = field(default_factory=list)


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run folder; what is missing ends up in `problems`.

    Raises:
        UserError: the folder does not exist, or holds nothing of a run.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a run folder; give the folder that contains metrics.jsonl"
        )
    files = RunFolder(folder)
    config, problems = _read_config(files.config)
    checkpoints = _find_checkpoints(files.checkpoints)
    if not files.metrics.exists() and not checkpoints and not config:
        raise UserError(
            f"{folder} contains no metrics.jsonl, config.yaml or checkpoints/; give the folder "
            f"that training wrote, such as runs/NAME"
        )
    metrics = read_metrics(files)
    problems += metrics.problems + _damaged(files)
    if not checkpoints:
        problems.append(
            "No checkpoint in checkpoints/, so attention, heads and features are not shown."
        )
    planned = _planned_epochs(config)
    last = metrics.last_epoch
    if planned is not None and last is not None and last >= planned and not files.finished():
        problems.append(
            f"No verdict: {files.result.name} is missing. The command that trained the run writes "
            "it when it is run again."
        )
    if planned is not None and last is not None and last < planned:
        problems.append(f"Unfinished: the last measurement is of epoch {last:g} of {planned:g}.")
    return Run(
        name or folder.resolve().name, folder, config, metrics, checkpoints, planned, problems
    )


def read_runs(folders: list[Path]) -> list[Run]:
    """Read several runs, with names that tell them apart."""
    resolved = [Path(os.path.realpath(folder)) for folder in folders]  # of links in a circle too
    plain = [folder.name for folder in resolved]
    names = [
        f"{folder.parent.name}/{folder.name}" if plain.count(folder.name) > 1 else folder.name
        for folder in resolved
    ]
    unique = [
        f"{name} ({names[:index].count(name) + 1})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
    return [read_run(folder, name) for folder, name in zip(folders, unique, strict=True)]


def find_value(config: Mapping[str, Any], *keys: str) -> Any:
    """The first value stored under one of `keys` anywhere in a nested configuration."""
    for key in keys:
        for mapping in _mappings(config):
            value = mapping.get(key)
            if value is not None and not isinstance(value, (dict, list)):
                return value
    return None


def _mappings(node: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    if depth > 20:
        return
    if isinstance(node, Mapping):
        yield node
        for child in node.values():
            yield from _mappings(child, depth + 1)
    elif isinstance(node, list):
        for child in node:
            yield from _mappings(child, depth + 1)


def _read_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    if not path.exists():
        return {}, [f"No configuration: {path.name}: No such file or directory."]
    try:
        content = read_yaml(path)
        if not yaml_is_whole(read_text(path)):
            return {}, [f"{path.name} is not what the run wrote, and is left out."]
    except UserError as error:
        return {}, [f"{path.name} cannot be read ({error})."]
    if not isinstance(content, dict) or KEY in content:  # a result in its place
        return {}, [f"{path.name} holds no configuration."]
    odd = [name for name in _GROUPS if not isinstance(content.get(name), _GROUP_TYPES)]
    problems = [f"{path.name}: {name} cannot be read: not a group of options." for name in odd]
    return {str(key): value for key, value in content.items()}, problems  # keys may be numbers


def _damaged(files: RunFolder) -> list[str]:
    """What is left out because it is damaged: the verdict, unreadable images."""
    problems = []
    if files.finished():
        try:
            read_json(files.result)
        except UserError as error:
            problems.append(f"No verdict and no facts of the data: {error}.")
    with contextlib.suppress(OSError):
        lines = files.unreadable.read_text(encoding="utf-8", errors="replace").splitlines()
        if damaged := sum(read_line(line) is None for line in lines):
            problems.append(f"{files.unreadable.name}: damaged lines were left out: {damaged}.")
    return problems


def _find_checkpoints(folder: Path) -> list[Checkpoint]:
    """Numbered checkpoints, and `last.torch` where it is a file of its own."""
    found = {}
    if folder.is_dir():
        for path in folder.iterdir():
            match = _CHECKPOINT.search(path.name)
            if match and path.is_file():
                place = (int(match[1]), int(match[2] or 0))
                found[place] = Checkpoint(path, place[0])
    checkpoints = [found[place] for place in sorted(found)]
    last = folder / "last.torch"
    if last.is_file() and last.resolve() not in [item.path.resolve() for item in checkpoints]:
        checkpoints.append(Checkpoint(last, checkpoints[-1].epoch if checkpoints else 0))
    return checkpoints


def _planned_epochs(config: Mapping[str, Any]) -> float | None:
    optim = config.get("optim")
    value = optim.get("epochs") if isinstance(optim, Mapping) else None
    if value is None:
        value = find_value(config, "num_epochs", "epochs")
    return float(value) if isinstance(value, (int, float)) else None
