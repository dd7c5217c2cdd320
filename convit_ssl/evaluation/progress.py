"""Progress of a measurement: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from convit_ssl.starting import own_progress, own_progress_ended, pause, silence, spoke

FIRST_LINE = 2.0  # seconds of work before a file or a pipe gets a line
SOONEST = 0.5  # of a part of the work, where the parts before it were silent for long


class Report(Protocol):
    """Takes how much is done of how much, and the part of the work where there are several."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """Show it."""


@contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Report | None]:
    """A callback (done, all) that shows progress on standard error.

    On a terminal it draws a bar, gone at the end. Elsewhere, as in a job's log, it writes lines,
    the first after 2 seconds and the others `pause` apart, even during a step that reports
    nothing. The first comes sooner where short parts of the work before this one were silent.
    Yields None if the label is empty.
    """
    if not label:
        yield None
        return
    own_progress(label)
    try:
        with _lines(label, unit) if not sys.stderr.isatty() else _bar(label, unit) as report:
            yield report
    finally:
        own_progress_ended(label)


@contextmanager
def _lines(label: str, unit: str) -> Iterator[Report]:
    lines = _Lines(label, unit)
    try:
        yield lines
    finally:
        lines.close()


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Report]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from convit_ssl.printable import printable
    from convit_ssl.terminal import Terminal

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Terminal(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(printable(label), total=None)

        def report(done: int, total: int, stage: str = "") -> None:
            shown = f"{label}: {stage}" if stage else label
            bar.update(task, description=printable(shown), completed=done, total=total)

        yield report
    spoke()


class _Lines:
    """Progress as lines of text, few enough for a log.

    They are written when work is reported, and by a thread while nothing is.
    """

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit = label, unit
        self.started = time.monotonic()
        wait = min(FIRST_LINE, max(SOONEST, FIRST_LINE - silence()))
        self.next_line = self.started + wait
        self._state: tuple[int, int, str] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._thread.start()

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        self._state = (done, total, stage)
        self._write_if_due()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.01, self.next_line - time.monotonic())):
            try:
                self._write_if_due()
            except (OSError, ValueError):  # nobody reads standard error any more
                return

    def _write_if_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self.next_line:
                return
            self.next_line = now + pause(now - self.started)
            print(self._line(now - self.started), file=sys.stderr, flush=True)
            spoke()

    def _line(self, seconds: float) -> str:
        if self._state is None:
            return f"{self.label}: working, {seconds:.0f} s"
        done, total, stage = self._state
        part = f": {stage}" if stage else ""
        return f"{self.label}{part}: {done:,} of {total:,} {self.unit} after {seconds:.0f} s"
