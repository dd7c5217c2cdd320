"""What a command looks up once, however many of its parts ask.

A run needs its images to plan, to train and to evaluate. On a network disk, listing ImageNet takes
minutes each time. A later command looks again, since files may have come or gone by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import ContextDecorator
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.RLock()
_depth = 0
_known: dict[Hashable, Any] = {}


class within_command(ContextDecorator):
    """What `once` looks up in the block, or the decorated function, it looks up once.

    Blocks may lie within each other; the outermost one forgets everything at its end.
    """

    def __enter__(self) -> None:
        global _depth
        with _lock:
            _depth += 1

    def __exit__(self, *error: object) -> None:
        global _depth
        with _lock:
            _depth -= 1
            if _depth == 0:
                _known.clear()


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns; within a command, what it returned first for this key.

    Args:
        key: what was asked for.
        make: looks it up. An error is raised again by each call.
    """
    with _lock:
        if _depth == 0:
            return make()
        if key not in _known:
            _known[key] = make()
        found: T = _known[key]
        return found
