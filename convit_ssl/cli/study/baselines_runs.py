"""The pretraining runs of a baselines study, with the processor time that each took."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.study.plan import whole
from convit_ssl.engines.auto.words import EXPERIMENT, named_methods
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.studies import design as study
from convit_ssl.evaluation.studies.runner import run_study
from convit_ssl.reading import read_record
from convit_ssl.runs import RunFolder
from convit_ssl.schema_auto import AutoOptions

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
    return _finish(_one(args, trunk, method, seed, epochs), out)


def race_of(folder: Path) -> dict[str, Any]:
    """What a run's race took, for its cell; nothing of a run without one."""
    path = RunFolder(folder).race
    return {"race": read_record(path, "decision")["decision"]} if path.exists() else {}


def commands(args: argparse.Namespace, out: Path, trunks: Sequence[str]) -> list[str]:
    """The command of each pretraining run that a study would start, finished ones included.

    The other rows are measured in the study's own process. Where ``--minutes`` is given and an
    epoch has not been timed yet, the runs that time it come first, with the first trunk, and a
    comment stands for the number of epochs that follows from them.
    """
    lines = []
    known = {method: _known_epochs(args, out, method) for method in args.methods}
    for method, epochs in known.items():
        if epochs is None and method != study.AUTO:
            for few in (SHORT, LONGER):
                folder = out / "calibration" / f"{method}-{few}"
                lines.append(_line(_one(args, trunks[0], method, 0, few), folder))
    for seed, trunk in itertools.product(range(args.seeds), trunks):
        for method, epochs in known.items():
            line = _line(_one(args, trunk, method, seed, epochs or SHORT), out)
            after = "  # with the optim.epochs that fill --minutes, as timed by the runs above"
            lines.append(line if epochs is not None else line + after)
    return lines


def _one(args: argparse.Namespace, trunk: str, method: str, seed: int, epochs: int) -> study.Run:
    return study.pretraining([trunk], [method], _settings(args, epochs), [seed]).runs[0]


def _line(run: study.Run, out: Path) -> str:
    return shlex.join(run.command(out / "runs" / run.name))


def _known_epochs(args: argparse.Namespace, out: Path, method: str) -> int | None:
    """The epochs of a method's runs; None where they are yet to be found out."""
    if args.minutes is None:
        return int(args.epochs)
    path = _calibration(out, method)
    return int(read_record(path, "epochs")["epochs"]) if path.exists() else None


def _calibration(out: Path, method: str) -> Path:
    return out / "calibration" / f"{method}.json"


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
    path = folder / SPENT
    return float(read_record(path, "core_seconds")["core_seconds"]) if path.exists() else 0.0


def _of_children() -> float:
    """Processor seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _epochs(args: argparse.Namespace, out: Path, trunk: str, method: str) -> int:
    """The epochs that are asked for, or those that fill the minutes; found out once.

    A run of one epoch and, where the start is much of it, one of four tell what an epoch and
    the start cost. They are not counted among the row's core-minutes. All trunks are trained for
    the epochs that were found with the first, so that a busy moment favours neither.
    """
    known = _known_epochs(args, out, method)
    if known is not None:
        return known
    if method == study.AUTO:
        return _epochs_beside_race(args, out, trunk)
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
    row = {**found, "epochs": epochs, "seconds_of_an_epoch": epoch}
    write_json(row, _calibration(out, method))
    return epochs


def _epochs_beside_race(args: argparse.Namespace, out: Path, trunk: str) -> int:
    """The epochs that leave the race its share of the minutes, by the first candidate's speed."""
    options = _race_options(args)
    first = options.methods[0]
    alone = _epochs(args, out, trunk, first)
    epochs = max(1, int(alone / (1 + options.share)))
    row = {"epochs": epochs, "epochs_without_race": alone, "by": first, "share": options.share}
    write_json(row, _calibration(out, study.AUTO))
    return epochs


def _race_options(args: argparse.Namespace) -> AutoOptions:
    """What ``--set convit_auto:auto.share=0.2`` and the like say."""
    given = dict(
        word.removeprefix(f"{EXPERIMENT}:").split("=", 1)
        for word in args.set
        if word.startswith(f"{EXPERIMENT}:auto.") and "=" in word
    )
    options = AutoOptions()
    options.methods = list(named_methods(given.get("auto.methods", options.methods)))
    options.share = float(given.get("auto.share", options.share))
    return options


def _cost(args: argparse.Namespace, out: Path, trunk: str, method: str, epochs: int) -> float:
    run = _one(args, trunk, method, 0, epochs)
    return _finish(run, out / "calibration" / f"{method}-{epochs}").core_seconds
