"""What a change must leave alone unless it is meant to change it, in numbers.

Each function makes the entries of one file beside this one, `<name>.jsonl`: options of every
experiment, keys of a checkpoint, what augmentation draws, `--help`, the sentences of errors, and
the losses of 20 steps.
`python -m tests.golden.make_goldens` writes the files anew.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from tests.golden.sentences import sentences
from tests.golden.tiny import TINY, tiny_task, twenty_steps

Entries = dict[str, Any]
EXPERIMENTS = (
    "convit_barlow_twins",
    "convit_diet",
    "convit_dino",
    "convit_finetune",
    "convit_ibot",
    "convit_lejepa",
    "convit_linear",
    "convit_low_shot",
    "convit_moco_v3",
    "convit_simclr",
    "convit_supervised",
    "convit_swav",
    "convit_vicreg",
)
# Images, their typical size, and classes: a few specimens, a small data set, ImageNet.
COLLECTIONS = ((240, (64, 64), 4), (5_000, (28, 28), 10), (1_281_167, (375, 500), 1_000))
# Nothing of the machine that makes them.
PLACE = "data=folder data_dir=/images run=cpu run.threads=1 run.precision=fp32 data.workers=0"


class Collection:
    """Stands in for a folder of images, of which a plan asks for the facts alone."""

    labelled = True
    targets = (0,)
    root = Path("/images/train")

    def __init__(self, images: int, size: tuple[int, int], classes: int) -> None:
        self.images, self.size = images, size
        self.classes = [f"class{number}" for number in range(classes)]
        self.targets = np.arange(images) % classes

    def __len__(self) -> int:
        return self.images

    def native_size(self) -> tuple[int, int]:
        return self.size

    def is_grey(self) -> bool:
        return False

    def survey(self, progress: Any = None) -> Any:
        from convit_ssl.data.checks.survey import Survey
        from convit_ssl.data.reading.value_range import Reading

        return Survey([self.size], False, Reading())

    def digest(self) -> str:
        return "digest"


def published_plan(experiment: str, images: int = 1_281_167, *more: str) -> Any:
    """The plan of an experiment for a collection of `COLLECTIONS`, ImageNet unless said."""
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    facts = next(facts for facts in COLLECTIONS if facts[0] == images)
    composed = compose_experiment([f"config={experiment}", *PLACE.split(), *more])
    opened = mock.Mock(side_effect=lambda *_, **__: Collection(*facts))
    with mock.patch("convit_ssl.engines.options.plan.open_dataset", opened):
        return make_plan(composed)


def options() -> Entries:
    """Resolved options of each experiment by collection; what is at its default is left out."""
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan
    from convit_ssl.methods import METHODS
    from convit_ssl.schema import Experiment

    schema = asdict(Experiment())
    defaults = _flat({**schema, "experiment": None})
    entries: Entries = {"defaults": defaults}
    entries |= {
        f"defaults {name}": _flat(asdict(kind.Options(name))) for name, kind in METHODS.items()
    }
    for experiment in EXPERIMENTS:
        written = compose_experiment([f"config={experiment}", *PLACE.split()])
        for collection in COLLECTIONS:
            composed = copy.deepcopy(written)
            opened = mock.Mock(side_effect=lambda *_, **__: Collection(*collection))  # noqa: B023
            with mock.patch("convit_ssl.engines.options.plan.open_dataset", opened):
                plan = make_plan(composed)
            found = _flat({**plan.options, "facts": None})
            method = entries[f"defaults {found['method.name']}"]
            usual = {**defaults, **{f"method.{key}": value for key, value in method.items()}}
            entries[f"{experiment} {collection[0]}"] = {
                key: value
                for key, value in found.items()
                if key not in usual or usual[key] != value
            }
    return entries


def keys() -> Entries:
    """Names and shapes of what a checkpoint holds, by experiment."""
    entries: Entries = {}
    for experiment in TINY:
        # Muon multiplies in bfloat16, which processors do differently.
        more = ("optim.name=adamw",) if experiment == "convit_simclr" else ()
        task = tiny_task(experiment, *more)
        state = {
            "model": task.base_model.get_classy_state()["model"],
            "loss": task.base_loss.get_classy_state(),
        }
        entries[experiment] = dict(_shapes("", state))
    return entries


def draws() -> Entries:
    """Eight values of each crop, of three images by three pipelines."""
    from convit_ssl.data.augment.collate import fast_collate
    from convit_ssl.data.augment.device import DeviceAugmentation
    from convit_ssl.data.augment.fast import Normalize
    from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation

    config = AugmentConfig.dino(24, 12, 2).adapt(vertical_flip=0.5)
    entries: Entries = {}
    for name, image in _images().items():
        for pipeline in ("pil", "fast", "device"):
            given: Any = image
            if pipeline == "pil":
                from PIL import Image

                given = Image.fromarray(image)
            made: Any = build_augmentation(config, pipeline)(given, seed=12345)
            if pipeline == "fast":
                finish = Normalize(config.mean, config.std)
                made = [finish(crop[None])[0] for crop in made]
            if pipeline == "device":
                batch, _, _ = fast_collate([(made, 0, 0)])
                made = [crops[0] for crops in DeviceAugmentation(config)(*batch)]
            entries[f"{name} {pipeline}"] = [_some(crop) for crop in made]
    return entries


def help_texts() -> Entries:
    """What each command, and each command under a command, says of itself, by lines."""
    from convit_ssl.cli.main import COMMANDS

    # Another Python's argparse lays it out in another way.
    entries: Entries = {"python": python_version(), "": _help()}
    for command in COMMANDS:
        entries[command] = _help(command)
        for nested in _nested(entries[command]):
            entries[f"{command} {nested}"] = _help(command, nested)
    return entries


def losses() -> Entries:
    """Losses of 20 steps from counted weights on counted images, and the weights' length after."""
    entries: Entries = {}
    for experiment in TINY:
        # Muon multiplies in bfloat16, which processors do differently.
        more = ("optim.name=adamw",) if experiment == "convit_simclr" else ()
        task = tiny_task(experiment, *more)
        entries[experiment] = twenty_steps(task)
    return entries


def _images() -> dict[str, Any]:
    rows, columns = np.mgrid[0:60, 0:44]
    red, green = rows * 4 % 256, columns * 5 % 256
    colour = np.stack([red, green, (rows * columns) % 256], axis=-1).astype(np.uint8)
    grey = np.repeat(((rows * 3 + columns * 2) % 256).astype(np.uint8)[:, :, None], 3, axis=2)
    return {"colour": colour, "grey": np.ascontiguousarray(grey), "small": colour[:9, :13].copy()}


def _some(crop: Tensor) -> Entries:
    flat = crop.contiguous().double().flatten()
    places = torch.linspace(0, len(flat) - 1, 8).long()
    values = [round(float(value), 3) for value in flat[places]]
    return {"shape": list(crop.shape), "mean": round(float(flat.mean()), 4), "values": values}


def python_version() -> str:
    """Of this interpreter, such as 3.11."""
    return ".".join(map(str, sys.version_info[:2]))


def _help(*words: str) -> list[str]:
    from convit_ssl.cli.main import main

    said = io.StringIO()
    wide = mock.patch.dict(os.environ, {"COLUMNS": "100"})
    with wide, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return said.getvalue().splitlines()


def _nested(lines: list[str]) -> list[str]:
    """Commands under a command: {a,b} or a|b, the first of its positional arguments."""
    place = next((n for n, line in enumerate(lines) if line == "positional arguments:"), -1)
    first = lines[place + 1].split()[0] if place >= 0 else ""
    listed = first.startswith("{") or "|" in first
    return re.split(r"[,|]", first.strip("{}")) if listed else []


def _flat(tree: Any, prefix: str = "") -> Entries:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in _flat(child, f"{prefix}{name}.").items()
    }


def _shapes(prefix: str, state: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(state, Tensor):
        yield prefix, list(state.shape)
    elif isinstance(state, dict):
        for name, child in state.items():
            yield from _shapes(f"{prefix}.{name}".removeprefix("."), child)
    else:
        yield prefix, type(state).__name__


def path_of(name: str) -> Path:
    """The file that holds a net's entries."""
    return Path(__file__).with_name(f"{name}.jsonl")


def read(name: str) -> Entries:
    """Entries on file, one a line."""
    lines = map(json.loads, path_of(name).read_text(encoding="utf-8").splitlines())
    return {line["name"]: line["value"] for line in lines}


def write(name: str, entries: Entries) -> None:
    """Put entries on file, one a line, so that a change shows which of them it changes."""
    lines = [json.dumps({"name": key, "value": value}) for key, value in entries.items()]
    path_of(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


NETS: dict[str, Callable[[], Entries]] = {
    "options": options,
    "keys": keys,
    "draws": draws,
    "help": help_texts,
    "errors": sentences,
    "steps": losses,
}
