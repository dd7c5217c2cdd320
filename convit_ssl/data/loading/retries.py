"""Asking a file system or a server again that answers with an error for a while."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# Seconds to wait before asking again: 17.6 s in all.
RETRY_DELAYS = (0.1, 0.5, 2.0, 5.0, 10.0)

# Not every platform has every one of them.
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EIO",
        "EAGAIN",
        "EBUSY",
        "EINTR",
        "ESTALE",
        "ETIMEDOUT",
        "ENOTCONN",
        "ECONNRESET",
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "EREMOTEIO",
        "ENFILE",
        "EMFILE",
        "ENOLINK",
        "ESHUTDOWN",
    )
    if hasattr(errno, name)
)


def may_pass(error: BaseException | None) -> bool:
    """Whether an error is of a file system or a network, and not of what lies there."""
    return isinstance(error, OSError) and error.errno in _PASSING


def retried(
    read: Callable[[], Result], passing: Callable[[BaseException | None], bool] = may_pass
) -> Result:
    """What `read` returns; after an error that may pass it is called again, with growing pauses.

    Raises:
        OSError: another error, or one that stayed.
    """
    for delay in RETRY_DELAYS:
        try:
            return read()
        except OSError as error:
            if not passing(error):
                raise
        time.sleep(delay)
    return read()
