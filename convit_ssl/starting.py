"""A line about what is being imported, where the start of a command takes over two seconds.

PyTorch and scikit-learn take that long on a cold or busy machine. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

FIRST_LINE = 2.0  # seconds before the first line; lines come twice as far apart each time
BETWEEN_CHECKS = 0.25  # seconds
ENOUGH_CHECKS = 4  # in a row without an import: the command is at work
OURS = "convit_ssl"

_at_work = threading.Event()


@contextlib.contextmanager
def imports_reported(name: str) -> Iterator[None]:
    """Write to standard error which library the main thread imports, after 2, 4, 8, ... seconds.

    The thread that does so ends once the command is at work, which has progress of its own.

    Args:
        name: the command.
    """
    _at_work.clear()
    watched = threading.get_ident()
    threading.Thread(target=_report, args=(name, watched), daemon=True).start()
    try:
        yield
    finally:
        at_work()


def at_work() -> None:
    """The command reports its own progress from now on."""
    _at_work.set()


def _report(name: str, watched: int) -> None:
    started = time.monotonic()
    next_line, idle = FIRST_LINE, 0
    while idle < ENOUGH_CHECKS and not _at_work.wait(BETWEEN_CHECKS):
        library = _imported(sys._current_frames().get(watched))
        idle = 0 if library else idle + 1
        seconds = time.monotonic() - started
        if library and seconds >= next_line:
            next_line = 2 * seconds
            which = "" if library == OURS else f" ({library})"
            line = f"convit-ssl {name}: importing libraries{which}, {seconds:.0f} s"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed or full
                print(line, file=sys.stderr, flush=True)


def _imported(frame: FrameType | None) -> str | None:
    """The library whose import a thread is in, the outermost one; None outside of imports."""
    found = None
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            library = str(frame.f_locals.get("name", "")).partition(".")[0]
            found = library if library != OURS or found is None else found
        frame = frame.f_back
    return found
