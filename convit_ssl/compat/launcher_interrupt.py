"""Stopping VISSL's launcher with Ctrl-C.

Broke: the launcher swallows the interrupt and leaves with exit code 0, as if the training had
    ended well; the message it logs has no placeholder for its argument, so the logging
    module prints a traceback of its own, also after failures.
Since: always
Upstream: vissl/utils/distributed_launcher.py:161
Goes when: the launcher does not catch the interrupt.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any


class Logging:
    """The logging module for the launcher; ``error`` accepts an exception as its argument."""

    def error(self, message: str, *args: Any) -> None:
        """Log the message with the exception; exit with code 130 on an interrupt."""
        if args and isinstance(args[0], KeyboardInterrupt):
            raise SystemExit(130)
        if args and isinstance(args[0], BaseException):
            logging.error(f"{message}{args[0]!r}")
            return
        logging.error(message, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(logging, name)


def apply(module: ModuleType) -> None:
    """Give the launcher a ``logging`` that can log exceptions."""
    if module.logging is logging:
        module.logging = Logging()  # type: ignore[attr-defined]
