"""What a command says while nothing else does: which library it imports, or that it works.

Importing PyTorch and scikit-learn takes over two seconds on a cold or busy machine, and a plan of a
run as long again. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

FIRST_LINE = 1.5  # seconds of silence; Python itself has taken up to half a second by then
BETWEEN_CHECKS = 0.25  # seconds
# Lines of progress outside of a terminal, in seconds: every 2 in the first 10, every 5 in the first
# minute, then further and further apart, and every 30 after six minutes.
EARLY, LATER, RAREST = 2.0, 5.0, 30.0
OURS = "convit_ssl"

_spoke: list[float] = []  # when the last line was written
_own: list[str] = []  # who reports its own progress at present
_parts: list[str] = []  # of the work, the innermost last


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
def silence_reported(name: str) -> Iterator[None]:
    """Write lines to standard error while the block writes nothing, `pause` apart.

    It names the library that the main thread imports, if it does. Whoever reports its own progress
    takes over with `own_progress`. Of the processes of one job, the first alone speaks.

    Args:
        name: the command.
    """
    if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")) != "0":
        yield
        return
    ended = threading.Event()
    _own.clear()
    spoke()
    arguments = (name, threading.get_ident(), ended)
    threading.Thread(target=_report, args=arguments, name="silence", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def own_progress(who: str) -> None:
    """``who`` reports its progress from now on, until `own_progress_ended`."""
    _own.append(who)


def own_progress_ended(who: str) -> None:
    """Silence is reported again, unless somebody else took over too."""
    if who in _own:
        _own.remove(who)


@contextlib.contextmanager
def working_on(part: str) -> Iterator[None]:
    """Lines that break a silence say ``part`` in place of "working" while the block runs."""
    _parts.append(part)
    try:
        yield
    finally:
        _parts.remove(part)


def pause(elapsed: float) -> float:
    """Seconds from one line of progress to the next, ``elapsed`` seconds after the work began."""
    return min(RAREST, max(EARLY if elapsed < 10 else LATER, elapsed / 12))


def spoke() -> None:
    """A line was written just now."""
    _spoke[:] = [time.monotonic()]


def silence() -> float:
    """Seconds since the last line; 0 where none was written in the last minute."""
    seconds = time.monotonic() - _spoke[0] if _spoke else 0.0
    return seconds if 0 <= seconds < 60 else 0.0


def _report(name: str, watched: int, ended: threading.Event) -> None:
    began = last = _spoke[0]
    next_line = FIRST_LINE
    while not ended.wait(BETWEEN_CHECKS):
        if _own:
            continue
        if _spoke[0] != last:  # by somebody else; our own lines do not end a silence
            began = last = _spoke[0]
            next_line = FIRST_LINE
        seconds = time.monotonic() - began
        if seconds < next_line:
            continue
        next_line = seconds + pause(seconds)
        library = _imported(sys._current_frames().get(watched))
        line = f"convit-ssl {name}: {_doing(library)}, {seconds:.0f} s"
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed or full
            print(line, file=sys.stderr, flush=True)
            spoke()
            last = _spoke[0]


def _doing(library: str | None) -> str:
    if library is None:
        return _parts[-1] if _parts else "working"
    return "importing libraries" + ("" if library == OURS else f" ({library})")


def _imported(frame: FrameType | None) -> str | None:
    """The library whose import a thread is in, the outermost one; None outside of imports."""
    found = None
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            library = str(frame.f_locals.get("name", "")).partition(".")[0]
            found = library if library != OURS or found is None else found
        frame = frame.f_back
    return found
