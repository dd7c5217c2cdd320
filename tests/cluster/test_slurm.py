"""Jobs on a real SLURM: preempted, timed out, requeued, killed; the losses stay the same."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import EPOCHS
from tests.cluster.private_slurm import Slurm
from tests.quick_run import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


def submit(slurm: Slurm, root: Path, *overrides: str) -> tuple[Run, str]:
    run = Run(
        root, "run=slurm", "run.device=cpu", "run.nodes=2", "run.processes=1",
        "run.gpus_per_node=0", "run.partition=low", "run.precision=fp32", "run.grace_seconds=30",
        "run.cpus_per_task=2", "run.hours=1", f"optim.epochs={EPOCHS}", *overrides,
    )  # fmt: skip
    run.arguments.remove("run=cpu")
    assert run.complete(**slurm.environment) == 0, run.text()
    number = re.search(r"^job (\d+):", run.text(), re.MULTILINE)
    assert number, run.text()
    return run, number[1]


def log(run: Run, job: str) -> str:
    return "".join(path.read_text() for path in (run.folder / "slurm").glob(f"{job}_*_log.out"))


def until_step(slurm: Slurm, run: Run, job: str, step: int) -> None:
    def there() -> bool:
        assert slurm.job(job)["JobState"] in ("PENDING", "RUNNING", "CONFIGURING"), log(run, job)
        return run.alive(0) and run.alive(1) and run.steps() >= step

    slurm.until(there)


@contextlib.contextmanager
def held(slurm: Slurm, run: Run) -> Iterator[None]:
    """Let the run stand still until SLURM's signal is there, however fast it would be."""
    process = run.beat(1)["pid"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
        slurm.until(lambda: signalled(process))
    finally:
        os.kill(process, signal.SIGCONT)


def signalled(process: int) -> bool:
    """Whether a SIGUSR2 waits for a process, or a SIGCONT let it go on already."""
    status = Path(f"/proc/{process}/status").read_text()
    waiting = int(re.findall(r"ShdPnd:\s+(\w+)", status)[0], 16)
    return bool(waiting >> (signal.SIGUSR2 - 1) & 1) or "State:\tT" not in status


def until_finished(slurm: Slurm, run: Run, job: str) -> None:
    slurm.until(lambda: slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"))
    assert slurm.job(job)["JobState"] == "COMPLETED", log(run, job)


def test_one_job_survives_preemption_time_out_and_kills(
    slurm: Slurm, tmp_path: Path, undisturbed: list[float]
) -> None:
    """Each disturbance once, in the life that the one before left.

    The run overwrites an earlier one: once, and not what it did before a requeue.
    """
    earlier = tmp_path / "run" / "metrics.jsonl"
    earlier.parent.mkdir()
    earlier.write_text('{"kind": "epoch", "epoch": 99, "loss": 1.0}\n')
    run, job = submit(slurm, tmp_path, "run.requeue=5", "run.overwrite=true")
    assert slurm.job(job)["Partition"] == "low"
    second = Run(tmp_path, *run.arguments)
    second.arguments = run.arguments
    assert second.complete(**slurm.environment) == 2
    assert f"job {job} is already working on this run" in second.text()

    until_step(slurm, run, job, 10)
    with held(slurm, run):
        slurm.ask("sbatch", "-phigh", "-N3", "--exclusive", "-o/dev/null", "--wrap=sleep 2")
    slurm.until_restarted(job, 1)
    assert "stopped by SIGUSR2 after step" in log(run, job)

    until_step(slurm, run, job, max(run.saved()) + 5)
    with held(slurm, run):
        hours, minutes, _ = slurm.job(job)["RunTime"].rpartition("-")[2].split(":")
        limit = 60 * int(hours) + int(minutes) + 2
        slurm.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    slurm.until(lambda: log(run, job).count("stopped by SIGUSR2") == 2)
    slurm.until(lambda: slurm.job(job)["JobState"] == "PENDING")
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    slurm.until_restarted(job, 2)

    until_step(slurm, run, job, max(run.saved()) + 5)
    os.kill(run.beat(1)["pid"], signal.SIGKILL)
    slurm.until_restarted(job, 3)
    assert len((run.folder / "slurm" / f"failures_{job}").read_text().splitlines()) == 1

    until_step(slurm, run, job, max(run.saved()) + 5)
    nodes = slurm.ask("scontrol", "show", "hostnames", slurm.job(job)["NodeList"]).split()
    slurm.kill_node(nodes[1], [run.beat(1)["pid"]])
    slurm.until_restarted(job, 4)
    slurm.start_node(nodes[1])

    until_finished(slurm, run, job)
    assert run.losses() == undisturbed
    assert len(re.findall(r"^resumed ", log(run, job), re.MULTILINE)) == 4
    assert run.stray_files() == []


def test_a_task_that_always_fails_fails_the_job_with_its_code(slurm: Slurm, tmp_path: Path) -> None:
    run, job = submit(slurm, tmp_path, "run.requeue=0")
    until_step(slurm, run, job, 5)
    os.kill(run.beat(0)["pid"], signal.SIGKILL)
    slurm.until(lambda: slurm.job(job)["JobState"] == "FAILED")
    assert slurm.job(job)["ExitCode"] != "0:0"
    assert slurm.job(job)["Restarts"] == "0"
