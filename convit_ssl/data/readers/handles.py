"""Open files that are read many times, such as slides: a few of them are kept open.

A handle belongs to one thread of one process. A loader's worker that was forked, and a thread
beside, have positions of their own in the file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Handle = TypeVar("Handle")
_Key = tuple[str, tuple[int, ...]]


class Handles(Generic[Handle]):
    """The last few files that were opened.

    Args:
        opening: opens a path.
        most: files kept open in each thread.
    """

    def __init__(self, opening: Callable[[str], Handle], most: int = 8) -> None:
        self._opening = opening
        self._most = most
        self._local = threading.local()

    def get(self, path: str) -> Handle:
        """The open file; opened again where its content changed.

        Raises:
            Exception: whatever opening it raises.
        """
        if getattr(self._local, "process", None) != os.getpid():
            # What a parent process opened is left to it: closing it here would move its place.
            self._local.process, self._local.kept = os.getpid(), OrderedDict()
        kept: OrderedDict[_Key, Any] = self._local.kept
        key = (path, _state(path))
        if key in kept:
            kept.move_to_end(key)
        else:
            kept[key] = self._opening(path)
            while len(kept) > self._most:
                _, old = kept.popitem(last=False)
                with contextlib.suppress(Exception):
                    old.close()
        found: Handle = kept[key]
        return found


def _state(path: str) -> tuple[int, ...]:
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns, state.st_ino
