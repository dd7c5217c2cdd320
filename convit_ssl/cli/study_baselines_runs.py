"""The pretraining runs of a baselines study, with the processor time that each took."""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
from pathlib import Path
from typing import Any

from convit_ssl.cli import division_options
from convit_ssl.cli.study_plan import whole
from convit_ssl.errors import UserError
from convit_ssl.evaluation import study
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.study_runner import run_study

SPENT = "core_seconds.json"
SHORT, LONGER = 1, 4  # epochs of the runs that tell what an epoch costs


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A finished run: its folder, and the processor seconds of all its starts."""

    folder: Path
    core_seconds: float


def pretrained(
    args: argparse.Namespace, out: Path, trunk: str, method: str, seed: int
) -> Pretrained:
    """Run a pretraining, or resume it, or take it as it is.

    Raises:
        UserError: it failed, with its last line.
    """
    epochs = _epochs(args, out, trunk, method)
    (run,) = study.pretraining([trunk], [method], _settings(args, epochs), [seed]).runs[:1]
    return _finish(run, out)


def _settings(args: argparse.Namespace, epochs: int) -> study.Settings:
    words = (*division_options.overrides(args), *args.set)
    subset = args.subset or whole(args)
    if subset:
        words = (*words, f"data.subset='{subset}'")
    return study.Settings(args.data, args.data_dir, epochs, args.batch_size, args.run, True, words)


def _finish(run: study.Run, out: Path) -> Pretrained:
    folder = out.absolute() / "runs" / run.name
    before = _spent(folder)
    started = _of_children()
    try:
        (state,) = run_study(study.Study("pretraining", "baselines", (run,)), out)
    finally:
        spent = before + _of_children() - started
        if folder.exists():
            write_json({"core_seconds": round(spent, 2)}, folder / SPENT)
    if state.status == "failed":
        raise UserError(f"{run.name} failed: {state.message} (see {state.folder}/study.log)")
    return Pretrained(state.folder, spent)


def _spent(folder: Path) -> float:
    try:
        found: float = json.loads((folder / SPENT).read_text())["core_seconds"]
    except OSError:
        return 0.0
    return found


def _of_children() -> float:
    """Processor seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _epochs(args: argparse.Namespace, out: Path, trunk: str, method: str) -> int:
    """The epochs that are asked for, or those that fill the minutes; found out once.

    A run of one epoch and, where the start is much of it, one of four tell what an epoch and
    the start cost. They are not counted among the row's core-minutes.
    """
    if args.minutes is None:
        return int(args.epochs)
    path = out / "calibration" / f"{method}.json"
    if path.exists():
        known: int = json.loads(path.read_text())["epochs"]
        return known
    budget = 60 * args.minutes
    short = _cost(args, out, trunk, method, SHORT)
    start, epoch = 0.0, short
    found: dict[str, Any] = {"one_epoch": short}
    if short < 0.5 * budget:
        longer = _cost(args, out, trunk, method, LONGER)
        epoch = max((longer - short) / (LONGER - SHORT), 0.02 * short)
        start = max(0.0, short - SHORT * epoch)
        found["four_epochs"] = longer
    epochs = max(1, int((budget - start) / epoch + 0.5))
    write_json({**found, "epochs": epochs, "seconds_of_an_epoch": epoch}, path)
    return epochs


def _cost(args: argparse.Namespace, out: Path, trunk: str, method: str, epochs: int) -> float:
    (run,) = study.pretraining([trunk], [method], _settings(args, epochs), [0]).runs[:1]
    return _finish(run, out / "calibration" / f"{method}-{epochs}").core_seconds
