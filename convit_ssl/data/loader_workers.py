"""Loader workers belong to their process: they leave with it, and with nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterable
from typing import Any

PR_SET_PDEATHSIG = 1


def shield_worker(worker: int) -> None:
    """Let a loader worker live exactly as long as its training process (``worker_init_fn``).

    Signals that ask a job to stop reach the workers too. They ignore them, so that the training
    process can finish its step with the images it needs, and tells them to leave. When it is
    killed without a word, the kernel ends them (Linux), so that none stays behind.

    Args:
        worker: its number, unused.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_workers(iterators: Iterable[Any]) -> None:
    """Let the workers of loaders go that training leaves in the middle of an epoch.

    Otherwise the interpreter asks them by SIGTERM when it ends, which they ignore, and waits.

    Args:
        iterators: what ``iter(loader)`` gave; others than PyTorch's are left alone.
    """
    for iterator in iterators:
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
        for worker in getattr(iterator, "_workers", ()):
            if worker.is_alive():  # stuck, for instance in a file system that does not answer
                worker.kill()
