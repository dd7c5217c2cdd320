"""Sets PyTorch's threads to what is fastest while a run trains on a CPU, and records it.

Other numbers of threads add up in another order, so that results differ in their last bits. The
run folder keeps every decision with its step, and a resumed run begins with the number that its
checkpoint was trained with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convit_ssl.engines.hooks import QuietHook, TrainingHook
from convit_ssl.engines.pace import Decision, Pace
from convit_ssl.engines.placement import Placement
from convit_ssl.runs import RunFolder
from convit_ssl.writing import whole_file

MANY = 1024  # threads; a recorded number beyond is damage


def thread_hooks(
    placement: Placement, deterministic: bool, training: TrainingHook, folder: Path
) -> list[ThreadHook]:
    """The hook, for a run whose number of threads is left to it.

    There is none where the user set the number, for deterministic runs, beside a GPU, and for
    several processes, which wait for each other anyway.
    """
    left = placement.device == "cpu" and placement.world_size == 1 and placement.threads > 1
    if placement.threads_given or deterministic or not left:
        return []
    return [ThreadHook(placement.threads, folder, training)]


class ThreadHook(QuietHook):
    """Times training steps and changes the number of threads between them.

    Args:
        most: threads that there may be.
        folder: of the run.
        training: knows the steps that were taken, and the terminal.
        clock: seconds.
        use: sets the number of threads.
    """

    def __init__(
        self,
        most: int,
        folder: Path,
        training: TrainingHook,
        clock: Callable[[], float] = time.perf_counter,
        use: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        super().__init__()
        self.most = most
        self.path = RunFolder(folder).threads
        self.training = training
        self._clock, self._use = clock, use
        self._last: float | None = None
        self._pace: Pace

    def on_start(self, task: Any) -> None:
        """Begin with the number that was found before the checkpoint, if there is one."""
        decisions = read_decisions(self.path, self._steps(task))
        if self.path.is_file():  # what was decided after this step belongs to steps that are gone
            with contextlib.suppress(OSError), whole_file(self.path) as part:
                part.write_text("".join(f"{json.dumps(entry)}\n" for entry in decisions))
        self._pace = Pace(self.most, decisions[-1]["threads"] if decisions else None)
        self._use(self._pace.threads)

    def on_phase_start(self, task: Any) -> None:
        """Leave out what lies between two epochs."""
        self._last = None

    def on_step(self, task: Any) -> None:
        """Time a training step, and set the number for the next."""
        if not task.train:
            return
        now = self._clock()
        if self._last is not None:
            before = self._pace.threads
            decision = self._pace.step(now - self._last)
            if self._pace.threads != before:
                self._use(self._pace.threads)
            if decision is not None:
                self._record(decision, self._steps(task))
        self._last = now

    def _steps(self, task: Any) -> int:
        return int(task.iteration) + self.training.steps_before

    def _record(self, decision: Decision, step: int) -> None:
        logging.info("threads after step %d: %s", step, decision.describe())
        entry = {"step": step, "threads": decision.threads, "seconds": dict(decision.seconds)}
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self.training.screen is not None and decision.changed:
            self.training.screen.line(decision.describe())


def read_decisions(path: Path, step: int) -> list[dict[str, Any]]:
    """The decisions up to a step, oldest first; what is damaged is passed over.

    Args:
        path: the file of decisions, which need not be there.
        step: steps taken.
    """
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
                entry = json.loads(line)
                if int(entry["step"]) <= step and int(entry["threads"]) in range(1, MANY + 1):
                    found.append({**entry, "threads": int(entry["threads"])})
    return found
