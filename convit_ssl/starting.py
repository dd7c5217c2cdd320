"""What a command says while it starts, and how long it has been silent.

Importing PyTorch and scikit-learn takes over two seconds on a cold or busy machine. Imports nothing
heavy.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

FIRST_LINE = 2.0  # seconds before the first line; lines come twice as far apart each time
BETWEEN_CHECKS = 0.25  # seconds
PAUSE = 1.0  # seconds without an import, after which the next one counts from its own start
OURS = "convit_ssl"

_at_work = threading.Event()
_spoke: list[float] = []  # when the last line of progress was written


def open_closed_streams() -> None:
    """Let standard streams that were closed by who started this process lead nowhere.

    Otherwise ``print(..., file=sys.stderr)`` writes to standard output, and the next file that is
    opened gets the number of a stream.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 for good


@contextlib.contextmanager
def imports_reported(name: str) -> Iterator[None]:
    """Write to standard error which library the main thread imports, after 2, 4, 8, ... seconds.

    That ends with `at_work`, or with the block.

    Args:
        name: the command.
    """
    _at_work.clear()
    spoke()
    watched = threading.get_ident()
    threading.Thread(target=_report, args=(name, watched), daemon=True).start()
    try:
        yield
    finally:
        at_work()


def at_work() -> None:
    """The command reports its own progress from now on."""
    _at_work.set()


def spoke() -> None:
    """A line of progress was written just now."""
    _spoke[:] = [time.monotonic()]


def silence() -> float:
    """Seconds since the last line of progress; 0 where none was written in the last minute."""
    seconds = time.monotonic() - _spoke[0] if _spoke else 0.0
    return seconds if 0 <= seconds < 60 else 0.0


def _report(name: str, watched: int) -> None:
    began, worked = time.monotonic(), None  # of the imports that last, of other work since
    next_line = FIRST_LINE
    while not _at_work.wait(BETWEEN_CHECKS):
        library, now = _imported(sys._current_frames().get(watched)), time.monotonic()
        if library is None:
            worked = now if worked is None else worked
            continue
        if worked is not None and now - worked > PAUSE:
            began, next_line = now, FIRST_LINE
        worked, seconds = None, now - began
        if seconds >= next_line:
            next_line = 2 * seconds
            which = "" if library == OURS else f" ({library})"
            line = f"convit-ssl {name}: importing libraries{which}, {seconds:.0f} s"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed or full
                print(line, file=sys.stderr, flush=True)
                spoke()


def _imported(frame: FrameType | None) -> str | None:
    """The library whose import a thread is in, the outermost one; None outside of imports."""
    found = None
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            library = str(frame.f_locals.get("name", "")).partition(".")[0]
            found = library if library != OURS or found is None else found
        frame = frame.f_back
    return found
