"""Start a run: in this process, in several of this machine, under torchrun, or on SLURM."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from convit_ssl.children import safe_children
from convit_ssl.engines.callbacks.output import lasting_output
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, find_checkpoint
from convit_ssl.engines.checkpoints.lock import PATIENCE, SILENCE, lock_run
from convit_ssl.engines.checkpoints.resume import check_same_run, finished
from convit_ssl.engines.checkpoints.run_folder import forget, resume_words
from convit_ssl.engines.launch.early_signals import (
    heard_signals,
    own_process,
    signals_outside_training,
    stopped_outside,
)
from convit_ssl.engines.launch.failures import LOST_ANOTHER
from convit_ssl.engines.launch.orphans import leave_with
from convit_ssl.engines.launch.placement import place_of_process
from convit_ssl.engines.launch.signals import RunFailure
from convit_ssl.engines.memory.estimate import estimate, refuse_what_cannot_fit
from convit_ssl.engines.options.compose import Composed
from convit_ssl.engines.options.plan import Plan, make_plan
from convit_ssl.errors import TemporaryError, UserError, coded
from convit_ssl.leftovers import temporary_folder
from convit_ssl.process_end import end_process
from convit_ssl.runs import RunFolder
from convit_ssl.starting import own_progress

# After one process failed, the others get so long to say why themselves, and to leave.
LAST_WORDS = 5.0  # seconds
# Messages name files, and those have any bytes in their names.
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}


def launch(composed: Composed, arguments: Sequence[str], started: float) -> int:
    """Plan an experiment and run it. Returns the exit code.

    Args:
        composed: the options.
        arguments: the command line that they came from.
        started: `time.time()` at the command's start.

    Raises:
        UserError: what the user can mend.
    """
    try:
        if composed.auto:
            from convit_ssl.engines.auto.choice import decide

            found = decide(composed, bool(composed.tree.run.overwrite) and not _started_again())
            if isinstance(found, int):
                return found
            composed = found
        plan = make_plan(composed)
        if composed.race is not None:
            from convit_ssl.engines.auto.report import adopt

            adopt(plan, composed.race)
    except UserError as error:
        with coded(error.code):
            raise UserError(f"{_where()}{error}") from None
    try:
        return _run(plan, arguments, started)
    except TemporaryError as error:
        print(f"convit-ssl train: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _where() -> str:
    """Words for the node, where several run the same command."""
    alone = not any(name in os.environ for name in ("SLURM_STEP_ID", "TORCHELASTIC_RUN_ID"))
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    return "" if alone else f"node {socket.gethostname()} (rank {rank}): "


def _run(plan: Plan, arguments: Sequence[str], started: float) -> int:
    from convit_ssl.engines.train import train

    folder = plan.folder
    checkpoints = folder / CHECKPOINTS
    launcher = plan.placement.launcher
    rank, local_rank = place_of_process(launcher)
    afresh = plan.settings.run.overwrite and not _started_again()
    # What is to be overwritten is deleted last, when nothing else can refuse this run.
    over = not afresh and finished(folder, checkpoints, plan)
    if (over or rank == 0) and not afresh:
        found = find_checkpoint(checkpoints)
        if found is not None:
            check_same_run(found.path, plan)
    if over:
        if rank == 0:
            print(f"{folder} is finished. Start over with run.overwrite=true, or name a new run "
            f"with run.name=...")  # fmt: skip
        return 0
    if launcher == "slurm":
        from convit_ssl.engines.launch.slurm import submit

        return submit(plan, arguments)
    if launcher not in ("torchrun", "srun") and plan.placement.nodes > 1:
        raise UserError(
            f"run.nodes={plan.placement.nodes} needs run=slurm, or torchrun on each node"
        )
    if local_rank == 0:
        plan.memory = estimate(plan)
        refuse_what_cannot_fit(plan, plan.memory)
    if rank == 0:
        _claim(plan, folder, afresh)
    if launcher in ("torchrun", "srun"):
        meeting = "env://" if launcher == "torchrun" else "slurm"
        return train(plan, rank, local_rank, meeting, started)
    if plan.placement.world_size == 1:
        return train(plan, 0, 0, "", started)
    return _spawn(plan, started)


def _claim(plan: Plan, folder: Path, afresh: bool) -> None:
    """Write the configuration, and delete an earlier run if asked to, while nobody trains there.

    Raises:
        UserError: another process trains in the folder, or it cannot be written.
    """
    from convit_ssl.engines.options.write import make_folder, write_config

    make_folder(folder)
    # Nobody waits for a run to end only to delete it.
    with lock_run(folder, SILENCE if afresh else PATIENCE):
        if afresh:
            forget(folder)
        elif (found := find_checkpoint(folder / CHECKPOINTS)) is not None:
            check_same_run(found.path, plan)
        write_config(plan)
        if plan.race is not None:
            shutil.rmtree(RunFolder(folder).trials, ignore_errors=True)


def _started_again() -> bool:
    """Whether SLURM or torchrun repeats a command, which must not delete what it did before."""
    again = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in again)


def _spawn(plan: Plan, started: float) -> int:
    """One process per GPU or CPU share of this machine; the first failure ends all."""
    own_progress("the first process")
    with temporary_folder("convit_ssl-meet-") as meeting:
        with _pass_signals_on() as relay:
            with safe_children(), _ctrl_c_waits():
                context: Any = torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
                    _process,
                    (plan, started, str(meeting), os.getpid()),
                    plan.placement.processes,
                    join=False,
                )
            relay.to(context.processes, meeting)
            try:
                _join(context, meeting)
            except RunFailure as error:
                if relay.passed and isinstance(error, _Ended):
                    return stopped_outside(relay.passed[0])
                if relay.passed:  # it was asked to stop, and this came in between
                    print(f"convit-ssl train: {error}", file=sys.stderr, flush=True)
                    return 128 + relay.passed[0]
                if isinstance(error, _Ended):
                    raise RunFailure(f"{error}. {_what_next(plan)}") from None
                raise
        codes = [int(path.read_text()) for path in meeting.glob("code_*")]
    if len(codes) == plan.placement.processes:
        return max(codes)
    if relay.passed:
        return stopped_outside(relay.passed[0])
    raise RunFailure(f"a process ended without reporting an error. {_what_next(plan)}")


class _Ended(RunFailure):
    """A process ended without saying why."""


def _what_next(plan: Plan) -> str:
    return resume_words(plan.folder / CHECKPOINTS)


class _Relay:
    """Passes the stop signals of this process on to those it started, and waits for them.

    Attributes:
        passed: the signals that came, the first one first.
    """

    def __init__(self) -> None:
        self.passed: list[int] = []
        self._processes: Sequence[Any] = ()
        self._meeting = Path()

    def to(self, processes: Sequence[Any], meeting: Path) -> None:
        """The processes; what came while they were being started is passed on now."""
        self._processes, self._meeting = processes, meeting
        for signum in self.passed:
            self._send(signum)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal, as a handler."""
        self.passed.append(signum)
        self._send(signum)

    def _send(self, signum: int) -> None:
        for rank, process in enumerate(self._processes):
            if process.is_alive():
                listens = (self._meeting / f"listens_{rank}").exists()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signum if listens else signal.SIGTERM)


@contextlib.contextmanager
def _pass_signals_on() -> Iterator[_Relay]:
    relay = _Relay()
    if threading.current_thread() is not threading.main_thread():
        yield relay
        return
    previous = {number: signal.signal(number, relay.receive) for number in heard_signals()}
    try:
        yield relay
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C waits meanwhile, and in what is started here until it listens.

    An import would end in a traceback by it; ignored, it would be lost to this process as well.
    """
    # Starting the tracker unblocks Ctrl-C, so it comes first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(context: Any, meeting: Path) -> None:
    """Wait for the processes. Once one has failed, the others are ended; the first says why.

    Args:
        context: of PyTorch's `spawn`.
        meeting: where processes leave their messages.
    """
    ended = _wait_for_last_words(context.processes)
    try:
        while not context.join(grace_period=LAST_WORDS):
            pass
    except Exception as error:
        raise _first_failure(context, ended, meeting, error) from None


def _wait_for_last_words(processes: Sequence[Any]) -> list[int | None]:
    """Exit codes of those that ended by themselves: all, or until some time after a failure."""
    deadline: float | None = None
    while running := [process for process in processes if process.exitcode is None]:
        if deadline is None and any(process.exitcode for process in processes):
            deadline = time.monotonic() + LAST_WORDS
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        connection.wait([process.sentinel for process in running], left)
    return [process.exitcode for process in processes]


def _first_failure(
    context: Any, ended: Sequence[int | None], meeting: Path, error: Exception
) -> Exception:
    """Why a run ended: a process that was killed, a message of one, else what was raised.

    What this launcher killed, because it did not leave, is not the reason: only `ended` counts.
    """
    for path in sorted(meeting.glob("message_*")):
        return UserError(path.read_text(**TEXT))
    for rank, process in enumerate(context.processes):
        code = ended[rank]
        if code is not None and code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
            name = signal.Signals(-code).name
            memory = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
            return _Ended(f"rank {rank} (process {process.pid}) was killed by {name}{memory}")
    failures = [path.read_text(**TEXT) for path in sorted(meeting.glob("failure_*"))]
    # Who lost another process only saw it go; that one may have said why.
    if failures:
        return RunFailure(min(failures, key=lambda words: LOST_ANOTHER in words))
    code = getattr(error, "exit_code", None)
    if code is not None:
        return _Ended(str(error))
    return error


def _process(rank: int, plan: Plan, started: float, meeting: str, launcher: int) -> None:
    leave_with(launcher)
    own_process()
    try:
        with signals_outside_training(words=False), lasting_output():
            Path(meeting, f"listens_{rank}").touch()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            from convit_ssl.engines.train import train

            code = train(plan, rank, rank, str(Path(meeting, "rendezvous")), started)
            Path(meeting, f"code_{rank}").write_text(str(code))
            end_process(0)  # here, where no signal that comes late is one to end by
    except UserError as error:
        kind = "failure" if isinstance(error, TemporaryError) else "message"
        Path(meeting, f"{kind}_{rank}").write_text(str(error), **TEXT)
        raise
