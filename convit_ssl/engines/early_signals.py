"""Stop signals before training has begun to listen, and after: words and an exit code.

Imports nothing heavy, so that it is in place while PyTorch is being imported.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (
    signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP
)  # fmt: skip

_came: list[int] = []


def heard_signals() -> tuple[signal.Signals, ...]:
    """The stop signals, without SIGHUP where nohup has it ignored: a terminal may close then."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in STOP_SIGNALS if not (ignored and number == signal.SIGHUP))


def signal_that_came() -> int:
    """The first signal since `signals_outside_training` began to listen; 0 without one.

    The exception that it raises may have been lost: in a destructor, or to an import that is
    tried with a bare ``except``.
    """
    return _came[0] if _came else 0


def stopped_outside(signum: int) -> int:
    """Say that a signal came while nothing was trained; gives the exit code for it."""
    name = signal.Signals(signum).name
    print(
        f"convit-ssl train: stopped by {name} while no training was under way; everything on disk "
        f"is kept, and the same command resumes from there",
        file=sys.stderr,
        flush=True,
    )
    return 128 + signum


@contextlib.contextmanager
def signals_outside_training(words: bool = True) -> Iterator[None]:
    """A stop signal ends the process with 128 + its number, where nobody else listens.

    A library may turn the exception of a signal into one of its own, if the signal comes while
    it handles errors of its own: the signal decides then, too.

    Only a main thread may listen; elsewhere nothing changes.

    Args:
        words: say so; not in a process that another one started and speaks for.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        _came.append(signum)
        raise SystemExit(stopped_outside(signum) if words else 128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _came.clear()
    previous = {number: signal.signal(number, leave) for number in heard_signals()}
    try:
        yield
    except Exception:
        if not _came:
            raise
        raise SystemExit(128 + _came[0]) from None
    finally:
        _came.clear()
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
