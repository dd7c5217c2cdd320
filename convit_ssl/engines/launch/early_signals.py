"""Stop signals before training has begun to listen, and after: words and an exit code.

Imports nothing heavy, so that it is in place while PyTorch is being imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from convit_ssl.errors import StoppedBySignal

STOP_SIGNALS = (
    signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP
)  # fmt: skip

COMMAND_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # that stop any command

_came: list[int] = []
_own = False


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
    say(
        f"convit-ssl train: stopped by {name} while no training was under way; everything on disk "
        f"is kept, and the same command resumes from there"
    )
    return 128 + signum


def say(words: str) -> None:
    """A line on standard error, also where a signal interrupted the writing of another one."""
    try:
        print(words, file=sys.stderr, flush=True)
    except RuntimeError:  # a buffer is not entered twice
        with contextlib.suppress(OSError):
            os.write(2, f"\n{words}\n".encode(errors="backslashreplace"))
    except OSError:  # the terminal has gone, which is what SIGHUP says
        pass


def _end_own_process() -> None:
    """End a process that exists for one command; nothing of it is on its way to the disk."""
    if _own:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if sys.stdout is not None:
                sys.stdout.flush()
        os._exit(128 + _came[0])


def own_process() -> None:
    """This process exists for one command: where nothing else helps, a signal ends it at once."""
    global _own
    _own = True


@contextlib.contextmanager
def signals_outside_training(words: bool = True) -> Iterator[None]:
    """A stop signal ends the process with 128 + its number, where nobody else listens.

    Args:
        words: say so; not in a process that another one started and speaks for.
    """

    def stop(signum: int) -> SystemExit:
        return SystemExit(stopped_outside(signum) if words else 128 + signum)

    with _heard(heard_signals(), stop):
        yield


@contextlib.contextmanager
def stop_heard() -> Iterator[None]:
    """Stop signals raise in the block, and are not lost in a library.

    Ctrl-C raises KeyboardInterrupt, SIGTERM and SIGHUP raise `StoppedBySignal`.
    """

    def stop(signum: int) -> BaseException:
        return KeyboardInterrupt() if signum == signal.SIGINT else StoppedBySignal(signum)

    with _heard([number for number in heard_signals() if number in COMMAND_SIGNALS], stop):
        yield


@contextlib.contextmanager
def _heard(numbers: Sequence[int], stop: Callable[[int], BaseException]) -> Iterator[None]:
    """Raise an exception where a signal comes, and see that it has its effect.

    A library may turn the exception into one of its own, if the signal comes while it handles an
    error: the first signal's exception is raised then, too. Where it can go no further, as in a
    destructor or a callback of the garbage collector, Python would print a traceback and carry on:
    a process of our own ends. It does so as well when it is asked again.

    Only a main thread may listen; elsewhere nothing changes.

    Args:
        numbers: of the signals.
        stop: the exception for a signal; it may print words.
    """

    def receive(signum: int, frame: FrameType | None) -> None:
        again = bool(_came)
        _came.append(signum)
        if again:
            _end_own_process()
        raised.append(stop(signum))
        raise raised[-1]

    def lost(args: Any) -> None:
        if _came and isinstance(args.exc_value, (SystemExit, KeyboardInterrupt)):
            _end_own_process()
        else:
            hook(args)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _came.clear()
    raised: list[BaseException] = []
    hook, sys.unraisablehook = sys.unraisablehook, lost
    previous = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    except Exception:
        if not raised:
            raise
        raise raised[0] from None
    finally:
        _came.clear()
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
