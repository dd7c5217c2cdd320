"""Uses PyTorch's threads in the way that is fastest while a run trains on a CPU, and records it.

Other ways add up in another order, so that results differ in their last bits. The
run folder keeps every decision with its step, and a resumed run begins with the way that its
checkpoint was trained in.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convit_ssl.adapters.side_by_side import Threads, why_no_shares
from convit_ssl.engines.callbacks.progress import QuietHook, TrainingHook
from convit_ssl.engines.launch.pace import Decision, Pace, Way
from convit_ssl.engines.launch.placement import Placement
from convit_ssl.machine import release_freed_memory
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import read_line, seal_line
from convit_ssl.writing import whole_file

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


MANY = 1024  # threads; a recorded number beyond is damage


def thread_hooks(
    placement: Placement, deterministic: bool, training: TrainingHook, folder: Path
) -> list[ThreadHook]:
    """The hook, for a run whose number of threads is left to it.

    There is none where the user set the number, for deterministic runs, beside a GPU, and for
    several processes, which wait for each other anyway.
    """
    if not left_to_run(placement, deterministic):
        return []
    return [ThreadHook(placement.threads, folder, training)]


def left_to_run(placement: Placement, deterministic: bool) -> bool:
    """Whether a run tries ways to use its threads."""
    several = placement.device == "cpu" and placement.world_size == 1 and placement.threads > 1
    return several and not placement.threads_given and not deterministic


class ThreadHook(QuietHook):
    """Times training steps and changes the number of threads between them.

    Args:
        most: threads that there may be.
        folder: of the run.
        training: knows the steps that were taken, and the terminal.
        clock: seconds.
        use: sets the number of threads of operations.
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
        self._threads: dict[int, Threads] = {}

    def on_start(self, task: ConViTSSLTask) -> None:
        """Begin with the way that was found before the checkpoint, if there is one."""
        decisions = read_decisions(self.path, self._steps(task))
        if self.path.is_file():  # what was decided after this step belongs to steps that are gone
            with contextlib.suppress(OSError), whole_file(self.path) as part:
                part.write_text("".join(map(seal_line, decisions)))
        last = decisions[-1] if decisions else None
        settled = Way(last["threads"], bool(last.get("shares"))) if last else None
        why = why_no_shares(task, self.most)
        logging.info("the batch is%s shared out between threads: %s", " not" if why else "", why)
        self._pace = Pace(self.most, settled, shares=not why)
        self._begin(task, self._pace.way)

    def on_end(self, task: ConViTSSLTask) -> None:
        """End the threads that had shares."""
        task.share_out(None)
        for threads in self._threads.values():
            threads.close()
        self._threads.clear()

    def on_phase_start(self, task: ConViTSSLTask) -> None:
        """Leave out what lies between two epochs."""
        self._last = None

    def on_step(self, task: ConViTSSLTask) -> None:
        """Time a training step, and set the number for the next."""
        if not task.train:
            return
        now = self._clock()
        if self._last is not None:
            before = self._pace.way
            decision = self._pace.step(now - self._last)
            if self._pace.way != before:
                release_freed_memory()  # its peak is made of other sizes; its first step is untimed
                self._begin(task, self._pace.way)
            if decision is not None:
                self._record(decision, self._steps(task))
        self._last = now

    def _begin(self, task: ConViTSSLTask, way: Way) -> None:
        """Use a way. Heads, loss and optimiser divide their operations among as many threads."""
        self._use(way.threads)
        if way.shares and way.threads not in self._threads:
            self._threads[way.threads] = Threads(way.threads)
        task.share_out(self._threads[way.threads] if way.shares else None)

    def _steps(self, task: ConViTSSLTask) -> int:
        return int(task.iteration) + self.training.steps_before

    def _record(self, decision: Decision, step: int) -> None:
        logging.info("threads after step %d: %s", step, decision.describe())
        seconds = {str(way): spent for way, spent in decision.seconds.items()}
        way = decision.way._asdict()
        entry = {"step": step, **way, "seconds": seconds}
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(seal_line(entry))
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
                entry = read_line(line) or {}
                if int(entry["step"]) <= step and int(entry["threads"]) in range(1, MANY + 1):
                    found.append({**entry, "threads": int(entry["threads"])})
    return found
