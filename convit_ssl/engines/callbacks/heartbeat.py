"""Which process is where: a small file per process, and a word when the run stands still.

``<run>/heartbeat/rank_00003.json`` says at which step a process is, what it is doing, and since
when; it is written every few seconds by a thread, from C++ waits too. A process whose step does
not move compares the files and names the one that the others wait for.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.engines.callbacks.progress import QuietHook

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


FOLDER = "heartbeat"
BEAT = 2.0  # seconds between two writes
LINE = 400  # characters of a beat, so that each covers the one before
STRAGGLING = 0.1  # seconds a step beyond the middle of all; less is the noise of a busy machine
SILENT = 15.0  # seconds without a beat: stopped, or its node is gone
# In the order of a step. A process in an earlier one is the one that is waited for.
IMAGES, LEARNING, SAVING, LOOKING = (
    "waiting for images",
    "exchanging gradients",
    "saving",
    "evaluating",
)
_ORDER = {IMAGES: 0, LEARNING: 1, SAVING: 2, LOOKING: 2}


@dataclass(frozen=True)
class Beat:
    """One process at one moment. Times are `time.time()`."""

    rank: int
    host: str
    pid: int
    step: int
    stage: str
    since: float
    written: float


def read_beats(folder: Path) -> list[Beat]:
    """The processes of a run by rank; files that are being written, or damaged, are left out."""
    beats = []
    for path in sorted((folder / FOLDER).glob("rank_*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            beat = Beat(**json.loads(path.read_text()))
            if _is_whole(beat):
                beats.append(beat)
    return beats


def _is_whole(beat: Beat) -> bool:
    """Whether a beat from a file holds what its fields are for."""
    whole: list[Any] = [beat.rank, beat.pid, beat.step]
    times: list[Any] = [beat.written, beat.since]
    words: list[Any] = [beat.host, beat.stage]
    return (
        all(type(value) is int for value in whole)
        and all(type(value) in (int, float) and abs(value) < 1e12 for value in times)
        and all(isinstance(value, str) for value in words)
    )


def describe_stall(beats: list[Beat], now: float) -> str:
    """Name the processes that the others wait for.

    The silent ones; else those behind in steps, or in an earlier part of the same step; else
    everyone is at the same place, and that is said.
    """
    if not beats:
        return "no process reported anything"
    silent = [beat for beat in beats if now - beat.written > SILENT]
    if silent:
        return "; ".join(
            f"{_name(beat)} has not responded for {now - beat.written:.0f} s "
            f"(last: step {beat.step}, {beat.stage})"
            for beat in silent[:4]
        )
    least = min((beat.step, _ORDER.get(beat.stage, 3)) for beat in beats)
    behind = [beat for beat in beats if (beat.step, _ORDER.get(beat.stage, 3)) == least]
    if len(behind) == len(beats):
        first = beats[0]
        if len(beats) == 1:  # which exchanges nothing; the first step compiles, where asked to
            stage = "computing" if first.stage == LEARNING else first.stage
            return f"it has been {stage} for {now - first.since:.0f} s, after step {first.step}"
        return (
            f"all {len(beats)} processes have been {first.stage} for "
            f"{now - max(beat.since for beat in beats):.0f} s, after step {first.step}"
        )
    others = next(beat for beat in beats if beat not in behind)
    waiting = "; ".join(
        f"{_name(beat)} has been {beat.stage} for {now - beat.since:.0f} s, after step {beat.step}"
        for beat in behind[:4]
    )
    return f"{waiting}; the others are {others.stage} after step {others.step}"


def _name(beat: Beat) -> str:
    return f"rank {beat.rank} on {beat.host} (process {beat.pid})"


class Heartbeat:
    """Writes this process's beats, and speaks up when its step does not move.

    Args:
        folder: the run folder, which all nodes see.
        rank, world_size: this process among all.
        stall_seconds: a step that takes longer is talked about.
        say: shows a line to the user; None in processes without a screen, which speak only
            when the first process is silent.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world_size: int,
        stall_seconds: float,
        say: Callable[[str], None] | None,
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.world_size = world_size
        self.stall_seconds = stall_seconds
        self.say = say
        self.path = folder / FOLDER / f"rank_{rank:05d}.json"
        now = time.time()
        self.beat = Beat(rank, socket.gethostname(), os.getpid(), 0, IMAGES, now, now)
        self._moved = time.monotonic()  # the time of day may jump
        self._told = False
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:  # of an earlier, larger world
            for path in self.path.parent.glob("rank_*.json"):
                if int(path.stem.removeprefix("rank_")) >= self.world_size:
                    path.unlink(missing_ok=True)
        self._write()
        self._thread.start()

    def stop(self, finished: bool) -> None:
        """Stop beating; after a run that ended well nothing is left of it."""
        self._leave.set()
        if self._thread.is_alive():
            self._thread.join()
        if finished:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
                self.path.parent.rmdir()  # by whoever is last

    def at(self, step: int, stage: str) -> None:
        """Note where this process is. Costs next to nothing."""
        self._moved = time.monotonic()
        self.beat = replace(self.beat, step=step, stage=stage, since=time.time())
        self._told = False

    def describe(self) -> str:
        """Who is waited for, from everyone's last beat."""
        return describe_stall(read_beats(self.folder), time.time())

    def _run(self) -> None:
        while not self._leave.wait(BEAT):
            self._write()
            if not self._told and self._still() > self.stall_seconds:
                self._told = True
                self._speak()

    def _still(self) -> float:
        """Seconds since the step moved."""
        return time.monotonic() - self._moved

    def _write(self) -> None:
        now = time.time()
        line = json.dumps(asdict(replace(self.beat, since=now - self._still(), written=now)))
        with contextlib.suppress(OSError):  # a full disk is talked about by the checkpoints
            # One call over what was there, so that whoever reads finds a whole line, also of a
            # process that was stopped in the middle.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, line.ljust(LINE).encode() + b"\n", 0)
            finally:
                os.close(descriptor)

    def _speak(self) -> None:
        self._write()
        message = f"no step for {self._still():.0f} s: {self.describe()}"
        logging.warning(message)
        first_is_silent = any(
            beat.rank == 0 and time.time() - beat.written > SILENT
            for beat in read_beats(self.folder)
        )
        if self.say is not None:
            self.say(f"warning: {message}")
        elif self.rank == 1 and first_is_silent:
            print(f"warning: {message}", file=sys.stderr, flush=True)


class HeartbeatHook(QuietHook):
    """Tells the heartbeat where training is, and adds up this process's own share of a step.

    The own share is the time until its gradients begin to be exchanged: images and forward pass.
    What the slowest process spends there, all others wait for.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__()
        self.heartbeat = heartbeat
        self.own_seconds = 0.0
        self.steps = 0
        self._step_began = 0.0

    def on_phase_start(self, task: ConViTSSLTask) -> None:
        """The first images of an epoch."""
        self.own_seconds, self.steps = 0.0, 0
        self._step_began = time.perf_counter()
        self.heartbeat.at(task.iteration, IMAGES)

    def on_forward(self, task: ConViTSSLTask) -> None:
        """The forward pass is over."""
        self.heartbeat.at(task.iteration, LEARNING)
        # The first steps of an epoch wait for the loaders to start.
        if task.batches >= 2:
            self.own_seconds += time.perf_counter() - self._step_began
            self.steps += 1

    def on_step(self, task: ConViTSSLTask) -> None:
        """The step is over."""
        self._step_began = time.perf_counter()
        self.heartbeat.at(task.iteration, IMAGES)

    def on_phase_end(self, task: ConViTSSLTask) -> None:
        """Name a straggler, then evaluation begins."""
        if task.train:
            self._name_straggler()
        self.heartbeat.at(task.iteration, LOOKING)

    def _name_straggler(self) -> None:
        from convit_ssl.evaluation import processes

        if processes.world_size() == 1:
            return
        own = self.own_seconds / max(self.steps, 1)
        every = processes.gather((own, self.heartbeat.beat.host))
        text = describe_straggler(every)
        if text and self.heartbeat.say is not None:
            self.heartbeat.say(f"warning: {text}")
            logging.warning(text)


def describe_straggler(every: list[tuple[float, str]]) -> str:
    """Name a process whose own part of a step is much longer than the others'.

    Args:
        every: mean seconds of the own part, and host, by rank.
    """
    times = sorted(seconds for seconds, _ in every)
    middle = times[(len(times) - 1) // 2]
    slowest, (seconds, host) = max(enumerate(every), key=lambda entry: entry[1][0])
    if seconds - middle < STRAGGLING or seconds < 1.5 * middle:
        return ""
    return (
        f"rank {slowest} on {host} needs {seconds:.2f} s a step for its images and forward pass, "
        f"the middle of all {middle:.2f} s; the others wait for it"
    )
