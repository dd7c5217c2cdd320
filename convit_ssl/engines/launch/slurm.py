"""Submit a run to SLURM with submitit; the job resumes automatically until the run is finished.

The job's tasks run the same command again, as the processes of the run. Before a time-out or a
preemption SLURM sends SIGUSR2: the tasks write a checkpoint and leave, and the batch script puts
the job back into the queue. A task that fails ends the others; the job is put back up to
``run.requeue`` times and fails with srun's exit code after that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.children import SAFE, safe_python
from convit_ssl.engines.launch.early_signals import STOP_SIGNALS
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError

FOLDER = "slurm"
# The processes have run.grace_seconds to leave, and this long to have the disk finish.
MARGIN_SECONDS = 30
USER_ERROR = 2
# Left after a checkpoint, because a time-out or a preemption was announced.
ANNOUNCED = tuple(128 + int(number) for number in (signal.SIGUSR1, signal.SIGUSR2))
ASKED_TO_END = 128 + int(signal.SIGTERM)  # scancel, or a preemption that requeues by itself


class Task:
    """What each task of the job does: the submitted command, as one process of the run.

    Args:
        arguments: the command's ``key=value`` options.
        directory: where it was given; relative paths in it are meant from there.
        folder: where the batch script looks whether the job is to go on.
    """

    def __init__(self, arguments: Sequence[str], directory: str, folder: str) -> None:
        self.arguments = list(arguments)
        self.directory = directory
        self.folder = folder

    def __call__(self) -> int:
        """Run, and leave with an exit code that srun and the batch script understand."""
        os.chdir(self.directory)
        for number in STOP_SIGNALS:  # submitit's handlers would requeue without a checkpoint
            signal.signal(number, signal.SIG_DFL)
        from convit_ssl.engines.launch.command import run_experiment

        try:
            code = run_experiment(self.arguments)
        except UserError as error:
            _hear_no_more()
            print(f"convit-ssl train: {error}", file=sys.stderr)
            code = error.exit_code
        except SystemExit as stopped:  # by a signal that came outside of training
            code = stopped.code if isinstance(stopped.code, int) else 1
        if code:
            _hear_no_more()
        if code in ANNOUNCED:
            # Where the code is lost all the same, to a SIGKILL, this file still says it.
            with contextlib.suppress(OSError):
                Path(self.folder, f"again_{os.environ.get('SLURM_JOB_ID', '')}").touch()
        if code:
            sys.stdout.flush()
            raise SystemExit(code)
        return code


def _hear_no_more() -> None:
    """Keep the exit code that is decided.

    The first task to leave, or to be lost, has srun end the others: a SIGTERM that says nothing new
    and must not become their exit code.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def submit(plan: Plan, arguments: Sequence[str]) -> int:
    """Submit the job and say where to look. Returns the exit code.

    Raises:
        UserError: SLURM is not here, refuses the job, or is at work on this run already.
    """
    import submitit

    if shutil.which("sbatch") is None:
        raise UserError(
            "run=slurm: sbatch was not found on this machine; run this on a login node of the "
            "cluster, or use run=gpu8 or torchrun"
        )
    run = plan.settings.run
    folder = plan.folder.absolute() / FOLDER
    _refuse_second(folder)
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=0, python=safe_python())
    executor.update_parameters(**parameters(plan, folder))
    # The folder of the run is fixed here: a name that depends on the directory must not change.
    # run.overwrite goes along. The job obeys it once, when it starts for the first time.
    fixed = [a for a in arguments if not a.startswith("run.dir=")]
    task = Task([*fixed, f"run.dir={plan.folder.absolute()}"], os.getcwd(), str(folder))
    try:
        job = executor.submit(task)
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"SLURM refused the job: {_last_line(str(error))}") from None
    (folder / "job").write_text(f"{job.job_id}\n")
    placement = plan.placement
    print(
        f"job {job.job_id}: {placement.nodes} x {placement.processes} processes "
        f"(partition {run.partition or 'default'}), up to {run.hours:g} h a turn, requeued "
        f"until the run is finished\n"
        f"output  {folder}/{job.job_id}_0_log.out\n"
        f"state   squeue -j {job.job_id}\n"
        f"stop    scancel {job.job_id}"
    )
    return 0


def parameters(plan: Plan, folder: Path) -> dict[str, Any]:
    """Submitit's parameters of the job."""
    run, placement = plan.settings.run, plan.placement
    given: dict[str, Any] = {
        "job_name": f"convit_ssl-{plan.folder.name}",
        "nodes": placement.nodes,
        "ntasks_per_node": placement.processes,
        "time": max(int(60 * float(run.hours)), 1),
        "signal_delay_s": int(run.grace_seconds) + MARGIN_SECONDS,
        "stderr_to_stdout": True,
        "setup": setup_lines(),
        "teardown": teardown_lines(folder, int(run.requeue)),
        # One failed task must not leave the others waiting for it.
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True},
    }
    for ours, theirs in (
        ("partition", "partition"),
        ("account", "account"),
        ("constraint", "constraint"),
        ("cpus_per_task", "cpus_per_task"),
    ):
        if (value := getattr(run, ours)) is not None:
            given[theirs] = value
    if placement.device == "cuda":
        given["gpus_per_node"] = run.gpus_per_node or placement.processes
    return given


def setup_lines() -> list[str]:
    """Lines of the batch script before srun.

    The tasks find this package without installing it, and nothing in the current folder.
    """
    root = Path(__file__).resolve().parents[3]
    return [
        f'export PYTHONPATH={shlex.quote(str(root))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        f"export {SAFE}=1",
    ]


def teardown_lines(folder: Path, requeue: int) -> list[str]:
    """Lines after srun: pass its exit code on, and put the job back where that may help.

    Args:
        folder: holds the list of failures, one line each.
        requeue: how many failures are forgiven.
    """
    failures = shlex.quote(str(folder)) + "/failures_$SLURM_JOB_ID"
    marker = shlex.quote(str(folder)) + "/again_$SLURM_JOB_ID"
    announced = "|".join(map(str, ANNOUNCED))
    return [
        "code=$?",
        'echo "srun: exit code $code"',
        'case "$code" in',
        f"  0|{USER_ERROR}|{ASKED_TO_END}) again=no ;;",
        f"  {announced}) again=yes ;;",
        f"  *) echo \"$(date '+%F %T') exit code $code on $SLURM_JOB_NODELIST\" >> {failures}",
        f'     [ "$(wc -l < {failures})" -le {requeue} ] && again=yes || again=no ;;',
        "esac",
        f"[ -e {marker} ] && rm -f {marker} && again=yes",
        'if [ "$again" = yes ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi',
        "exit $code",
    ]


def _refuse_second(folder: Path) -> None:
    """Two jobs must not write into one run folder."""
    try:
        number = (folder / "job").read_text().strip()
    except OSError:
        return
    if not re.fullmatch(r"\d+", number):
        return
    queue = subprocess.run(
        ["squeue", "--noheader", "--jobs", number, "--format", "%T"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    state = queue.stdout.strip()
    if state:
        raise UserError(
            f"job {number} is already working on this run ({state}); cancel it with scancel "
            f"{number}, or start another run with run.name=..."
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
