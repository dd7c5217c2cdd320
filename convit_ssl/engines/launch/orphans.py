"""A process whose launcher was killed leaves, also while it waits for processes that never come.

PyTorch asks Linux for a SIGINT where the launcher ends. A handler in Python runs between two of its
instructions, though, and a process that waits in the store of a process group has none for minutes.
"""

from __future__ import annotations

import os
import threading

POLL = 0.2  # seconds
ORPHANED = 1  # exit code; nobody is there to read it

_met = threading.Event()


def leave_with(launcher: int) -> None:
    """Watch the launcher until the processes have met; end this process where it is gone.

    After that a signal is heard between two steps, and a lost process is noticed in each.

    Args:
        launcher: its process number.
    """
    _met.clear()
    threading.Thread(target=_watch, args=(launcher,), name="launcher", daemon=True).start()


def met() -> None:
    """The processes have found each other."""
    _met.set()


def _watch(launcher: int) -> None:
    while not _met.is_set():
        if os.getppid() != launcher:
            os._exit(ORPHANED)  # nothing is computed yet
        _met.wait(POLL)
