"""One life of a run that is killed: its processes, its clock, and the board that they write on."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

RECORD = struct.Struct("dq")  # when a step was over, and which
LATEST, FIRST, STEPS = 0, 1, 2  # records: the last step of all, the first of a life, each step
NUMBER = struct.Struct("q")
RANKS = 8  # numbers of processes: the first ones of the second board
ALL, LAUNCHER, RANK, BY_TURNS = "all at once", "the launcher", "one process", "one by one"
LEAVING = 180.0  # seconds that processes have to leave once another was killed
JUMP = 86400.0  # seconds that the clock jumps by, at most
real_time = time.time  # the clock of this program, which does not jump


class Life:
    """One start of the run, until it ends or is killed.

    Args:
        plan: the run.
        processes: how many the launcher starts; one trains by itself.
        board: memory that all share: a time per step.
        numbers: and the process of each rank.
    """

    def __init__(self, plan: Any, processes: int, board: mmap.mmap, numbers: mmap.mmap) -> None:
        self.plan, self.processes, self.board, self.numbers = plan, processes, board, numbers
        for rank in range(RANKS):
            NUMBER.pack_into(numbers, NUMBER.size * rank, 0)
        self.jump = random.uniform(-JUMP, JUMP) if random.random() < 1 / 3 else 0.0
        self.jump_after = random.uniform(0, 4)
        self.code: int | None = None
        self.began = real_time()
        self.pid = os.fork()
        if not self.pid:
            self._live()

    def _live(self) -> None:
        code = 1
        try:
            os.setsid()
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            import torch

            import convit_ssl.engines.callbacks.heartbeat as heartbeat
            from convit_ssl.engines.launch import start as launch

            plain, board = heartbeat.HeartbeatHook.on_step, self.board

            def noted(hook: Any, task: Any) -> None:
                plain(hook, task)
                if hook.heartbeat.rank == 0:
                    note(board, STEPS + task.iteration, task.iteration)
                    if read(board, FIRST)[0] < self.began:
                        note(board, FIRST, task.iteration)
                    note(board, LATEST, task.iteration)

            heartbeat.HeartbeatHook.on_step = noted  # type: ignore[method-assign]
            torch.multiprocessing.spawn = self._forked  # type: ignore[attr-defined]
            self._number(0)
            if self.processes == 1:
                self._clock()
            try:
                code = launch._run(self.plan, [], self.began)
            except BaseException as error:
                code = int(getattr(error, "exit_code", 1))
        finally:
            os._exit(code)

    def _forked(self, function: Any, args: Any, processes: int, join: bool) -> Any:
        """PyTorch's `spawn`, without a second for the imports of each."""
        import torch

        def entry(rank: int, *more: Any) -> None:
            self._number(rank)
            self._clock()
            function(rank, *more)

        start = torch.multiprocessing.start_processes  # type: ignore[attr-defined]
        return start(entry, args, processes, join, start_method="fork")

    def _number(self, rank: int) -> None:
        NUMBER.pack_into(self.numbers, NUMBER.size * rank, os.getpid())

    def _clock(self) -> None:
        """Let the time of day jump in this process."""
        if self.jump:
            at = self.began + self.jump_after
            time.time = lambda: real_time() + (self.jump if real_time() > at else 0.0)

    def ranks(self) -> list[int]:
        """The processes that train, those that have begun."""
        size = NUMBER.size
        found = [NUMBER.unpack_from(self.numbers, size * rank)[0] for rank in range(self.processes)]
        return [pid for pid in found if pid and (pid != self.pid or self.processes == 1)]

    def running(self) -> bool:
        """Whether the launcher is there."""
        reap(self)
        return self.code is None

    def gone(self) -> bool:
        """Whether nothing is left of this life, loader workers and trackers included."""
        reap(self)
        return self.code is not None and not session(self.pid)

    def kill(self, victim: str) -> float:
        """Kill what is named; the rest has to leave by itself.

        Returns:
            Seconds until nothing was left.
        """
        began = real_time()
        if victim == ALL:
            kill(self.pid, group=True)
        elif victim == LAUNCHER:
            kill(self.pid)
        elif victim == RANK:
            kill(random.choice(self.ranks() or [self.pid]))
        else:
            for pid in random.sample([self.pid, *self.ranks()], len(self.ranks()) + 1):
                kill(pid)
                time.sleep(random.uniform(0, 0.5))
        while not self.gone():
            if real_time() - began > LEAVING:
                raise SystemExit(f"{session(self.pid)} are left {LEAVING:.0f} s after {victim}")
            time.sleep(0.01)
        return real_time() - began


def kill(pid: int, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)


def reap(life: Life) -> None:
    """Collect what has ended, orphans too, which are this program's by its own wish."""
    with contextlib.suppress(ChildProcessError):
        while (done := os.waitpid(-1, os.WNOHANG))[0]:
            if done[0] == life.pid:
                life.code = os.waitstatus_to_exitcode(done[1])


def session(leader: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its) == leader and state != "Z":
                    found.append(int(entry.name))
    return found


def note(board: mmap.mmap, slot: int, step: int) -> None:
    RECORD.pack_into(board, RECORD.size * slot, real_time(), step)


def read(board: mmap.mmap, slot: int) -> tuple[float, int]:
    when, step = RECORD.unpack_from(board, RECORD.size * slot)
    return float(when), int(step)
