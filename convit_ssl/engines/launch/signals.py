"""Being asked to stop: every process notes it, all leave together after one checkpoint.

SLURM warns of a time-out or a preemption by a signal, torchrun and `kill` send SIGTERM, a person
presses Ctrl-C or closes the terminal. A signal reaches some processes and not others, and each at
another step, so the processes agree: a reduction of three numbers, about once a second.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from convit_ssl.engines.launch.early_signals import heard_signals, signal_that_came
from convit_ssl.errors import TemporaryError

AGREE_EVERY = 1.0  # seconds
UNSAVED = 74  # EX_IOERR of sysexits.h
# Larger than any signal, so that it wins where processes agree: the run folder is gone.
FOLDER_GONE = 1000
MOST_STEPS = 20  # between two agreements, however short they are
# A terminal sends Ctrl-C to all processes, and the launcher passes it on: one request, not two.
SAME_REQUEST = 1.0  # seconds


class Stopped(Exception):
    """Training was asked to stop and has.

    Attributes:
        signum: the signal that asked.
        step: optimiser steps that are done.
        newest: name of the newest checkpoint that is on the disk; empty without one.
        problem: why the state after `step` is not on the disk; empty where it is.
    """

    def __init__(self, signum: int, step: int, newest: str = "", problem: str = "") -> None:
        super().__init__(signum, step, newest, problem)
        self.signum = signum
        self.step = step
        self.newest = newest
        self.problem = problem

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells report it; 74 where the state could not be written."""
        return UNSAVED if self.problem else 128 + self.signum

    def __str__(self) -> str:
        done = f"stopped by {signal.Signals(self.signum).name} after step {self.step}"
        resumes = f"the same command resumes from {self.newest}"
        if not self.newest:
            resumes = "no checkpoint was written, so the same command starts from the beginning"
        if self.problem:
            return f"{done}, but its checkpoint could not be written ({self.problem}); {resumes}"
        return f"{done}; {resumes}"


class RunFailure(TemporaryError):
    """The run failed through no fault of its command: a process or a node was lost."""


class SignalBox:
    """Keeps the first stop signal until the training loop comes to look.

    Args:
        grace_seconds: after so long without having left, the process ends at once: it hangs, or
            waits for a process that is gone. 0 waits for ever.
        on_overdue: gives words for that case, such as which process is waited for.
    """

    def __init__(
        self, grace_seconds: float = 0.0, on_overdue: Callable[[], str] | None = None
    ) -> None:
        self.signum = 0
        self.stopping = False  # the run ends by a signal, of this process or another
        self.received_at = 0.0
        self.grace_seconds = grace_seconds
        self.on_overdue = on_overdue
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def install(self) -> None:
        """Catch the stop signals, once. Only a main thread may; elsewhere nothing is caught."""
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        for number in heard_signals():
            self._previous[number] = signal.signal(number, self._receive)
        if earlier := signal_that_came():
            self._receive(earlier, None)

    def restore(self) -> None:
        """Put back what was there before; a process that was asked to stop hears no more."""
        for number, handler in self._previous.items():
            before = handler if handler is not None else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if self.stopping else before)
        self._previous.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == 0:
            self.signum, self.received_at = signum, time.monotonic()
            if self.grace_seconds > 0:
                self._timer = threading.Timer(self.grace_seconds, self._overdue)
                self._timer.daemon = True
                self._timer.start()
        elif signum == signal.SIGINT and time.monotonic() - self.received_at > SAME_REQUEST:
            raise KeyboardInterrupt  # pressed again: at once, without a checkpoint

    def _overdue(self) -> None:
        words = self.on_overdue() if self.on_overdue is not None else ""
        message = (
            f"{signal.Signals(self.signum).name} came {self.grace_seconds:g} s ago and no step has "
            f"ended since; leaving without a new checkpoint. {words}"
        )
        logging.error(message)
        print(f"convit-ssl train: {message}", file=sys.stderr, flush=True)
        os._exit(128 + self.signum)


class Agreement:
    """Decisions that all processes take at the same step, for next to no time.

    The first process's pace sets after how many steps the next one is due, and travels with it.

    Attributes:
        lag: seconds between the last two decisions; what becomes due waits for about as long.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self._decided_at: float | None = None
        self.interval = 1
        self._left = 1
        self._asked_at: float | None = None
        self._group: Any = None
        self._made = False

    def decide(self, stop: int, save: bool, now: bool = False) -> tuple[int, bool]:
        """The largest `stop` of all processes, and `save` of the first. Call it at every step.

        Args:
            stop: the signal this process got, or 0.
            save: whether a checkpoint is due; the first process's answer counts.
            now: agree at this step in any case; the same in all processes.
        """
        if not dist.is_initialized() or dist.get_world_size() == 1:
            self._note_time()
            return stop, save
        self._left -= 1
        if self._left > 0 and not now:
            return 0, False
        self._note_time()
        first = dist.get_rank() == 0
        numbers = [stop, int(save) if first else 0, self._next_interval() if first else 0]
        shared = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._cpu_group())
        stop, saving, self.interval = (int(number) for number in shared)
        self._left = self.interval
        return stop, bool(saving)

    def _note_time(self) -> None:
        time_now = time.monotonic()
        if self._decided_at is not None:
            self.lag = time_now - self._decided_at
        self._decided_at = time_now

    def _next_interval(self) -> int:
        now = time.monotonic()
        steps = max(self.interval - max(self._left, 0), 1)
        before, self._asked_at = self._asked_at, now
        if before is None:
            return 1
        seconds = max((now - before) / steps, 1e-6)
        return max(1, min(int(AGREE_EVERY / seconds), 2 * self.interval, MOST_STEPS))

    def _cpu_group(self) -> Any:
        """A group that does not wait for a GPU; the default one where that is on the CPU."""
        if not self._made:
            self._made = True
            if dist.get_backend() != "gloo":
                self._group = dist.new_group(backend="gloo")
        return self._group
