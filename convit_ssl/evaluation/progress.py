"""Progress of a measurement: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

FIRST_LINE = 2.0  # seconds of work before a file or a pipe gets a line
BETWEEN_LINES = 30.0  # at most; lines come twice as far apart each time


class Report(Protocol):
    """Takes how much is done of how much, and the part of the work where there are several."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """Show it."""


@contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Report | None]:
    """A callback (done, all) that shows progress on standard error.

    On a terminal it draws a bar, gone at the end. Elsewhere, as in a job's log, it writes a
    line after 2, 4, 8 and 16 seconds and then every 30. Yields None if the label is empty.
    """
    if not label:
        yield None
        return
    if not sys.stderr.isatty():
        yield _Lines(label, unit)
        return
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


class _Lines:
    """Progress as lines of text, few enough for a log."""

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit = label, unit
        self.started = time.monotonic()
        self.next_line = self.started + FIRST_LINE

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        now = time.monotonic()
        if now < self.next_line:
            return
        self.next_line = now + min(max(now - self.started, FIRST_LINE), BETWEEN_LINES)
        part = f": {stage}" if stage else ""
        print(
            f"{self.label}{part}: {done:,} of {total:,} {self.unit} after "
            f"{now - self.started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
