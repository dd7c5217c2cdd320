"""Runs that are SLURM jobs: waited for, given up, submitted again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from convit_ssl.evaluation.studies import slurm as study_slurm
from convit_ssl.evaluation.studies.design import (
    Run,
    Settings,
    sample_efficiency,
)
from convit_ssl.evaluation.studies.runner import State, run_study
from tests.unit.evaluation.studies.fake_runs import fake


def test_slurm_jobs_are_waited_for(tmp_path: Path) -> None:
    settings = Settings("digits", epochs=1, run="slurm")
    study = sample_efficiency(["convit_nano"], settings, [1.0], [0, 1])
    submit = [sys.executable, "-c", "pass"]
    seen: list[list[str]] = []

    def watch(states: list[State]) -> None:
        seen.append([state.status for state in states])
        if seen[-1] == ["submitted", "submitted"]:
            for state in states:
                (state.folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 1, watch, lambda run, folder: submit, interval=0.02)
    assert ["submitted", "submitted"] in seen
    assert [state.status for state in states] == ["done", "done"]


# Stands for SLURM: the jobs in the file beside it are in the queue.
SQUEUE = """#!/bin/sh
asked=",$(echo "$5"),"
while read -r job; do case "$asked" in *",$job,"*) echo "$job";; esac; done < "$0.jobs"
"""


def slurm_with(folder: Path, *jobs: int) -> Path:
    """A folder for PATH, whose queue holds these jobs."""
    folder.mkdir(exist_ok=True)
    (folder / "squeue").write_text(SQUEUE)
    (folder / "squeue").chmod(0o755)
    (folder / "squeue.jobs").write_text("".join(f"{job}\n" for job in jobs))
    return folder


def submitting(run: Run, folder: Path) -> list[str]:
    script = (
        "import sys; from pathlib import Path; folder = Path(sys.argv[1]) / 'slurm'\n"
        "folder.mkdir(exist_ok=True); (folder / 'job').write_text(sys.argv[2])\n"
        "(folder / f'{sys.argv[2]}_0_log.out').write_text('out of memory\\nsrun: error\\n')"
    )
    return [sys.executable, "-c", script, str(folder), str(10 + run.seed)]


def test_a_job_that_ends_without_a_result_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sample_efficiency(["convit_nano"], Settings("digits", run="slurm"), [1.0], [0, 1])
    queue = slurm_with(tmp_path / "bin", 10, 11)
    monkeypatch.setenv("PATH", f"{queue}:{os.environ['PATH']}")
    monkeypatch.setattr(study_slurm, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(study_slurm, "SECONDS_WITHOUT_RESULT", 0.1)

    def watch(states: Sequence[State]) -> None:
        if [state.status for state in states] == ["submitted", "submitted"]:
            slurm_with(queue, 11)  # job 10 is gone
        if states[0].status == "failed":
            (states[1].folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 2, watch, submitting, interval=0.02)
    assert [state.status for state in states] == ["failed", "done"]
    assert states[0].message == "job 10 ended without a result: out of memory"


def test_a_study_that_is_started_again_submits_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sample_efficiency(["convit_nano"], Settings("digits", run="slurm"), [1.0], [0, 1])
    queue = slurm_with(tmp_path / "bin", 10, 11)
    monkeypatch.setenv("PATH", f"{queue}:{os.environ['PATH']}")

    def leave(states: Sequence[State]) -> None:
        if {state.status for state in states} == {"submitted"}:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, 2, leave, submitting, interval=0.02)
    slurm_with(queue, 11)
    again: list[str] = []

    def command(run: Run, folder: Path) -> list[str]:
        again.append(run.name)
        return fake(0.5)(run, folder)

    def finish(states: Sequence[State]) -> None:
        (states[1].folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 2, finish, command, interval=0.02)
    assert [state.status for state in states] == ["done", "done"]
    assert again == [states[0].run.name]
