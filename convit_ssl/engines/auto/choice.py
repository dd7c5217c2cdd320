"""``config=convit_auto``: a short race on a part of train chooses method, crops and patches.

The race comes before the run, in one process. Its winner is trained by the plain command of its
method, so that both give the same weights.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.engines.auto import record as auto_record
from convit_ssl.engines.auto.race import Race, question_of
from convit_ssl.engines.auto.trial import compose_candidate
from convit_ssl.engines.auto.words import EXPERIMENT, named_methods
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, sorted_checkpoints
from convit_ssl.engines.launch.placement import place, place_of_process
from convit_ssl.engines.options.compose import Composed
from convit_ssl.engines.options.first_start import read_options
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.errors import UserError

POLL = 0.5  # seconds


def decide(composed: Composed, afresh: bool) -> Composed | int:
    """The experiment that a race chose; earlier races of this run are taken as they are.

    Args:
        composed: of ``config=convit_auto``.
        afresh: an earlier run of the folder is to be deleted.

    Returns:
        The winner's experiment, or the exit code where a signal stopped the race.

    Raises:
        UserError: no candidate can be trained, or the race cannot be run here.
    """
    methods = named_methods(list(composed.tree.auto.methods))
    plans, problems = _plans(composed, methods, most=1)
    first = next(iter(plans.values()))
    folder = first.folder
    rank, launcher = _place(composed)
    race = None if afresh else auto_record.decided(folder)
    known = _begun(folder) or (race or {}).get("question") == question_of(composed, first)
    if race is not None and known:
        return _chosen(composed, race)
    if not afresh and _begun(folder):
        if read_options(folder).get("experiment", EXPERIMENT) != EXPERIMENT:
            return composed  # a run of another experiment, which the launch refuses to mix with
        raise UserError(
            f"{folder} holds a run whose race.json and config.yaml are missing or damaged, so its "
            "method is not known; restore one of them, start over with run.overwrite=true, or "
            "give this run its own folder with run.name=..."
        )
    if launcher == "slurm":
        return composed  # the job's first process races
    several = launcher in ("torchrun", "srun")
    if several and afresh:
        raise UserError(
            f"run.overwrite=true with config=convit_auto under {launcher}: the processes cannot "
            f"tell the old race in {folder} from the new one. Delete that folder first, or give "
            "this run its own with run.name=..."
        )
    if rank != 0:
        return _chosen(composed, _wait(folder, composed, first))
    others = methods[len(plans) + len(problems) :]
    more, unfit = _plans(composed, others) if others else ({}, {})
    plans, problems = {**plans, **more}, {**problems, **unfit}
    found = Race(composed, plans, problems, folder).run(afresh)
    return found if isinstance(found, int) else _chosen(composed, found)


def _plans(
    composed: Composed, methods: Sequence[str], most: int | None = None
) -> tuple[dict[str, Plan], dict[str, str]]:
    """The whole training of each method that these images and this machine allow.

    Args:
        composed: of the race.
        methods: to plan.
        most: plans, the first ones that there are; they are then needed.

    Raises:
        UserError: a plan is needed and there is none; with the first method's reason.
    """
    plans: dict[str, Plan] = {}
    problems: dict[str, str] = {}
    errors: list[UserError] = []
    for method in methods:
        try:
            plans[method] = make_plan(compose_candidate(composed, method, ()))
        except UserError as error:
            problems[method] = str(error)
            errors.append(error)
        if most is not None and len(plans) == most:
            break
    if most is not None and not plans:
        raise errors[0]
    return plans, problems


def _place(composed: Composed) -> tuple[int, str]:
    launcher = place(composed.tree.run, composed.tree.data.workers).launcher
    return place_of_process(launcher)[0], launcher


def _begun(folder: Path) -> bool:
    return bool(sorted_checkpoints(folder / CHECKPOINTS))


def _chosen(composed: Composed, race: dict[str, Any]) -> Composed:
    decision = race["decision"]
    found = compose_candidate(composed, decision["method"], decision["settings"])
    return dataclasses.replace(found, race=race)


def _wait(folder: Path, composed: Composed, first: Plan) -> dict[str, Any]:
    """The race of the first process, once it is over.

    Torchrun and srun end this process where that one fails.
    """
    question = question_of(composed, first)
    while True:
        race = auto_record.decided(folder)
        if race is not None and race.get("question") == question:
            return race
        time.sleep(POLL)
