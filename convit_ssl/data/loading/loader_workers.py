"""Loader workers belong to their process: they leave with it, and with nothing else.

They hand over batches in shared memory, of which containers have 64 MiB where nobody asks for more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from convit_ssl.data.augment.collate import fast_collate

PR_SET_PDEATHSIG = 1
SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker has ready at most, as PyTorch has it
MIB = 2**20


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


def shared_mib(dataset: Any, batch_size: int) -> float:
    """Shared memory that one worker's batches take while they wait, by the first sample."""
    views = fast_collate([dataset[0]])[0]
    parts = [views] if isinstance(views, Tensor) else views
    return PREFETCHED * batch_size * sum(part.nbytes for part in parts) / MIB


def free_shared_mib() -> float:
    """What is left of the machine's or the container's shared memory; inf where none is known."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return float("inf")
    return room.f_bavail * room.f_frsize / MIB


def workers_that_fit(workers: int, mib: float) -> int:
    """As many of the workers as have room for `mib` of batches each in shared memory."""
    return int(min(workers, free_shared_mib() // max(mib, 1e-9)))


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
