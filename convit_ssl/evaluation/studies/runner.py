"""Run the training runs of a study: several at once, resumable, with one table."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit_ssl.children import safe_command, safe_environment
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import commit, hardware, now, versions, write_json
from convit_ssl.evaluation.row_checks import check_row
from convit_ssl.evaluation.studies.design import Run, Study
from convit_ssl.evaluation.studies.slurm import SlurmJobs, job_number
from convit_ssl.evaluation.studies.stop import stop, terminated_as_exit
from convit_ssl.machine import available_cores
from convit_ssl.reading import read_record
from convit_ssl.runs import RunFolder

RECORD = "study_run.json"


@dataclass
class State:
    """Where a run stands.

    Attributes:
        run: what it is.
        folder: its run folder.
        status: waiting, running, submitted, done or failed.
        process: while it runs here.
        slot: which of the places at once it has.
        started: seconds of `time.monotonic`.
        result: what it measured, once done.
        about: commit, versions, machine and time of its last start.
        message: why it failed.
        marks: see `Study.marks`; those it was run with, once it was.
    """

    run: Run
    folder: Path
    status: str = "waiting"
    process: subprocess.Popen[bytes] | None = None
    slot: int = 0
    started: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """Share of the epochs that is done, from the run's own record."""
        if self.status == "done":
            return 1.0
        last = RunFolder(self.folder).last_row()
        return min(1.0, float(last.get("epoch", 0)) / self.run.epochs) if last else 0.0


Watch = Callable[[Sequence[State]], None]
Command = Callable[[Run, Path], list[str]]


def run_study(
    study: Study,
    out: str | Path,
    jobs: int = 1,
    watch: Watch | None = None,
    command: Command | None = None,
    interval: float = 1.0,
    reuse: str | Path | None = None,
) -> list[State]:
    """Run what is not finished yet; an interrupted study resumes.

    Args:
        study: the runs.
        out: folder; each run has its own under `runs/`.
        jobs: number of runs at a time on this machine. SLURM jobs are all submitted.
        watch: called with all states about once in `interval`.
        command: of a run in a folder; `Run.command` by default.
        interval: seconds between two looks.
        reuse: folder of another study, whose finished runs of the same settings are taken over.

    Returns:
        All runs, done or failed.

    Raises:
        UserError: a folder holds a run of other settings, on other images or from other weights.
        KeyboardInterrupt: passed on, after the runs were told to stop.
    """
    folders = Path(out).absolute() / "runs"
    states = [State(r, folders / r.name, marks=study.marks(r)) for r in study.runs]
    finished = {} if reuse is None else _finished(Path(reuse))
    for state in states:
        state.folder = finished.get(json.dumps(state.run.overrides()), state.folder)
        _look_back(state)
    jobs_of_slurm = SlurmJobs()
    _resubmit(states, jobs_of_slurm)
    command = command or (lambda run, folder: run.command(folder))
    try:
        with terminated_as_exit():
            while any(state.status in ("waiting", "running", "submitted") for state in states):
                jobs_of_slurm.look(states)
                _advance(states, command, jobs)
                if watch is not None:
                    watch(states)
                if any(state.status in ("running", "submitted") for state in states):
                    time.sleep(interval)
    except BaseException:
        stop([state.process for state in states if state.process is not None])
        raise
    if watch is not None:
        watch(states)
    return states


def _advance(states: Sequence[State], command: Command, jobs: int) -> None:
    """Take note of what ended, and start what has a place."""
    for state in states:
        _look(state)
    taken = {state.slot for state in states if state.status == "running"}
    free = [slot for slot in range(jobs) if slot not in taken]
    waiting = [state for state in states if state.status == "waiting"]
    for state, slot in zip(waiting, free, strict=False):
        _start(state, command, slot, jobs)


def _look_back(state: State) -> None:
    """Find out what an earlier start of the study left."""
    record = _record(state)
    if record:
        before, now = record["overrides"], state.run.overrides()
        if before != now:
            changed = [word for word in before if word not in now]
            changed += [word for word in now if word not in before]
            raise UserError(
                f"{state.folder} holds a run with different settings ({', '.join(changed[:4])}); "
                f"give the study another --out"
            )
        _refuse_other(state, record.get("marks", {}))
    elif RunFolder(state.folder).finished():
        raise UserError(
            f"{state.folder} holds a run that does not belong to a study; give the "
            f"study another --out"
        )
    if not _collect(state) and record.get("submitted"):
        state.status = "submitted"


def _refuse_other(state: State, marks: dict[str, str]) -> None:
    """Refuse to average runs that were started on different images."""
    for name, words in (("images", "the images"), ("weights", state.run.arm.weights)):
        if name in marks and name in state.marks and marks[name] != state.marks[name]:
            raise UserError(
                f"{words} changed since {state.folder} was started, so its result cannot be "
                f"averaged with the others; give the study another --out"
            )


def _resubmit(states: Sequence[State], jobs: SlurmJobs) -> None:
    """Let what an earlier start submitted, and what has ended without a result, start again."""
    submitted = [state for state in states if state.status == "submitted"]
    queued = jobs.queued(submitted)
    for state in submitted:
        if queued is not None and job_number(state.folder) not in queued:
            state.status = "waiting"


def _finished(study: Path) -> dict[str, Path]:
    """Settings -> folder of the runs of a study that are done."""
    found = {}
    for record in sorted(study.absolute().glob(f"runs/*/{RECORD}")):
        if RunFolder(record.parent).finished():
            found[json.dumps(_read(record)["overrides"])] = record.parent
    return found


def _record(state: State) -> dict[str, Any]:
    path = state.folder / RECORD
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    way = f"Delete the folder {path.parent}, and the same command trains this run again"
    return read_record(path, "overrides", way=way)


def _collect(state: State) -> bool:
    if not RunFolder(state.folder).finished():
        return False
    try:
        result = read_record(RunFolder(state.folder).result, "accuracy")
        if result["accuracy"] is not None:
            check_row(result, RunFolder(state.folder).result)
        elif state.run.arm.labelled:
            raise UserError("result.json has no accuracy")
    except UserError as error:
        state.status, state.message = "failed", str(error)
        return True
    record = _record(state)
    state.status, state.result = "done", {**result, "seconds": record.get("seconds")}
    state.about = record.get("about", {})
    state.marks = record.get("marks", {})
    return True


def _start(state: State, command: Command, slot: int, jobs: int) -> None:
    state.folder.mkdir(parents=True, exist_ok=True)
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "time": now()}
    seconds = _record(state).get("seconds", 0.0)
    record = {
        "overrides": state.run.overrides(),
        "seconds": seconds,
        "about": about,
        "marks": state.marks,
    }
    write_json(record, state.folder / RECORD)
    environment = {**os.environ, **_share(slot, jobs)}
    with open(state.folder / "study.log", "ab") as log:
        # A process group of its own: the terminal's Ctrl-C is ours to pass on, once.
        state.process = subprocess.Popen(
            safe_command(command(state.run, state.folder)),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=safe_environment(environment),
            start_new_session=True,
        )
    state.status, state.slot, state.started = "running", slot, time.monotonic()


def _share(slot: int, jobs: int) -> dict[str, str]:
    """This run's part of the machine: threads, and one of several GPUs."""
    import torch

    share = {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, available_cores() // jobs))
    gpus = torch.cuda.device_count()
    if gpus > 1 and jobs > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        share["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    return share


def _look(state: State) -> None:
    if state.status == "submitted":
        _collect(state)
    if state.status != "running" or state.process is None:
        return
    code = state.process.poll()
    if code is None:
        return
    state.process = None
    record = _record(state)
    record["seconds"] = round(record.get("seconds", 0.0) + time.monotonic() - state.started, 1)
    record["submitted"] = code == 0 and state.run.settings.run.startswith("slurm")
    write_json(record, state.folder / RECORD)
    if _collect(state):
        return
    if record["submitted"]:
        state.status = "submitted"
        return
    state.status = "failed"
    state.message = f"exit code {code}: {_last_words(state.folder / 'study.log')}"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "no output"
