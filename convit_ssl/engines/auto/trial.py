"""One trial of a race: a short whole training on a part of train."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convit_ssl.data.images import take
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.subsets import choose, write_list
from convit_ssl.data.opening import divided_listing
from convit_ssl.engines.auto.words import candidate_words, written
from convit_ssl.engines.memory.estimate import estimate, refuse_what_cannot_fit
from convit_ssl.engines.options.compose import Composed, compose_experiment
from convit_ssl.engines.options.pixel_ranges import OPTIONS as RANGES
from convit_ssl.engines.options.plan import Plan, division_spec, make_plan
from convit_ssl.engines.options.scaling import OPTIONS as SCALED
from convit_ssl.export import load_network
from convit_ssl.leftovers import temporary_folder
from convit_ssl.models.trunks import Network
from convit_ssl.runs import RunFolder

MOST_LEARNED = 20_000  # images of a trial
WARMUP = 0.1  # of a trial's epochs
# One process, no records: what a trial leaves is its figure.
ALONE = (
    "run.launcher=local", "run.nodes=1", "run.processes=1", "run.overwrite=true",
    "run.tensorboard=false", "run.wandb=false", "run.fsdp=false", "run.keep_checkpoints=1",
    "watch.every=0",
)  # fmt: skip

# By which a process of torchrun knows its place.
OF_A_PROCESS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
)  # fmt: skip
OF_THE_TRIAL = ("epochs", "warmup_epochs", "batch_size")


class StoppedTrial(Exception):
    """A signal stopped a trial.

    Attributes:
        exit_code: of the command.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a trial took: of this process and its loader workers, and by the clock."""

    core_seconds: float
    seconds: float


def compose_candidate(composed: Composed, method: str, settings: Sequence[str]) -> Composed:
    """A candidate's whole experiment: its plain command, in the folder of the race's run.

    Raises:
        UserError: an option that does not go with the method.
    """
    found = compose_experiment(candidate_words(composed.arguments, method, settings))
    found.tree.experiment = composed.tree.experiment
    found.tree.auto = composed.tree.auto
    return dataclasses.replace(found, arguments=composed.arguments)


def learned_rows(rows: Any) -> Any:
    """Rows that trials learn from, no more than `MOST_LEARNED`."""
    if len(rows) <= MOST_LEARNED:
        return rows
    return np.sort(np.random.default_rng(1).permutation(rows)[:MOST_LEARNED])


def train_trial(
    composed: Composed, whole: Plan, settings: Sequence[str], rows: Any, epochs: int, folder: Path
) -> tuple[Network, Cost]:
    """Train a candidate for a while; returns its trunk and what that took.

    Args:
        composed: the race's experiment.
        whole: the plan of the candidate's whole training, whose settings the trial takes.
        settings: of the candidate.
        rows: of train, that it learns from.
        epochs: of the trial.
        folder: where it trains; it is deleted.

    Raises:
        UserError: the candidate cannot be trained here.
        StoppedTrial: a signal came.
    """
    from convit_ssl.engines.options.write import make_folder, write_config
    from convit_ssl.engines.train import train

    with temporary_folder("convit_ssl-race-") as place, _own_environment():
        names = Path(place, "images.txt")
        write_list(take(_listing(whole), [int(row) for row in rows]), names)
        words = [*settings, *_pinned(whole, len(rows), epochs), *ALONE]
        words += [f"data.subset='list={names}'", f"run.dir='{folder}'", "run.name=null"]
        arguments = candidate_words(composed.arguments, whole.settings.method.name, words)
        plan = make_plan(compose_experiment(arguments))
        refuse_what_cannot_fit(plan, estimate(plan))
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        write_config(plan)
        before, began = _spent(), time.perf_counter()
        code = train(plan, 0, 0, "", time.time(), quiet=True)
        cost = Cost(_spent() - before, time.perf_counter() - began)
        if code:
            raise StoppedTrial(code)
        network = load_network(RunFolder(folder).last)
    shutil.rmtree(folder, ignore_errors=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return network, cost


def _listing(plan: Plan) -> Listing:
    """The images that a plan trains on."""
    from vissl.config import AttrDict

    options = AttrDict(plan.options)
    listing = divided_listing(options.data.name, options.data_dir, "train", division_spec(options))
    return choose(listing, options.data.subset, "train") if options.data.subset else listing


def _pinned(whole: Plan, images: int, epochs: int) -> list[str]:
    """The settings of the whole training, which a part of its images would change."""
    settings = whole.settings
    optim = settings.optim
    names = [name for name in whole.choices if name not in OF_THE_TRIAL]
    keys = [key for name in names for key in SCALED.get(name, (f"method.{name}",))]
    keys += [f"data.{name}" for name in RANGES if getattr(settings.data, name) is not None]
    values = {key: _at(whole.options, key) for key in dict.fromkeys(keys)}
    batch = optim.batch_size
    parts = optim.accumulate * whole.placement.world_size
    while batch > images or batch % parts:
        parts = max(parts // 2, 1)
        batch = batch // 2 if batch > images else batch
    values |= {
        "optim.batch_size": batch,
        "optim.accumulate": parts,
        "optim.epochs": epochs,
        "optim.warmup_epochs": round(min(WARMUP * epochs, optim.warmup_epochs), 3),
        "optim.freeze_epochs": 0 if not optim.freeze_epochs else WARMUP * epochs,
    }
    return [f"{key}={written(value)}" for key, value in values.items()]


def _at(options: dict[str, Any], key: str) -> Any:
    value: Any = options
    for name in key.split("."):
        value = value[name]
    return value


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """A trial is a run of one process, and says so in variables that the run itself needs."""
    before = dict(os.environ)
    for name in before:
        if name in OF_A_PROCESS or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _spent() -> float:
    """Processor seconds of this process and of those it started that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
