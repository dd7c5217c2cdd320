"""The jobs of a study that wait and run under SLURM."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convit_ssl.evaluation.studies.runner import State

JOB = Path("slurm", "job")  # in a run folder, written by whoever submits
SECONDS_BETWEEN_LOOKS = 20.0
# A result may reach this machine's view of the disk after its job has left the queue.
SECONDS_WITHOUT_RESULT = 60.0


def job_number(folder: Path) -> str:
    """Of a run's last job; empty if there is none."""
    try:
        return (folder / JOB).read_text().strip()
    except OSError:
        return ""


class SlurmJobs:
    """Finds out which submitted runs have left the queue without a result."""

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._missing_since: dict[str, float] = {}

    def look(self, states: Sequence[State]) -> None:
        """Fail the submitted runs whose job is gone for a while and that have no result."""
        submitted = [state for state in states if state.status == "submitted"]
        now = time.monotonic()
        if not submitted or now - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        queued = self.queued(submitted)
        if queued is None:
            return
        for state in submitted:
            number = job_number(state.folder)
            if number in queued:
                self._missing_since.pop(number, None)
            elif now - self._missing_since.setdefault(number, now) >= SECONDS_WITHOUT_RESULT:
                state.status = "failed"
                state.message = f"job {number} ended without a result: {_last_words(state.folder)}"

    @staticmethod
    def queued(states: Sequence[State]) -> set[str] | None:
        """Numbers of their jobs that wait or run; None where SLURM does not say."""
        numbers = sorted({number for s in states if (number := job_number(s.folder))})
        if not numbers:
            return set()
        command = ["squeue", "--noheader", "--format", "%A", "--jobs", ",".join(numbers)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        # Of one job that is long gone SLURM says that there is no such job.
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        return set(done.stdout.split())


def _last_words(folder: Path) -> str:
    """The last line of the job's output, where the reason is."""
    outputs = sorted(folder.glob("slurm/*_log.out"), key=lambda path: path.stat().st_mtime)
    lines = outputs[-1].read_text(errors="replace").strip().splitlines() if outputs else []
    said = [line for line in lines if not line.startswith("srun: ")]
    return said[-1][:300] if said else f"no output in {folder / 'slurm'}"
