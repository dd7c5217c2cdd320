"""A run outlives whoever reads what it prints: a terminal, a pipe, a file on a full disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def spell_out(stream: object) -> None:
    r"""Let a stream write letters that it does not have as ``\xe9``, instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class Lasting:
    """A text stream whose writing never fails; the rest is the stream's own.

    What cannot be written is dropped. The next line is tried again: a disk may have room then.

    Args:
        stream: standard output or error; None, as Python has it where it was closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115
        spell_out(self._stream)
        self._fails = self._told = False

    def write(self, text: str) -> int:
        """Write and flush; gives the number of characters, as if they had been written."""
        self._fails = not self._written(text)
        return len(text)

    def flush(self) -> None:
        """Flush what others wrote past this object."""
        self._written("")

    def let_go(self) -> None:
        """After a failure, what is written later, and at Python's end, goes nowhere."""
        if self._fails:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _written(self, text: str) -> bool:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:  # gone or full; closed
            if not self._told:
                self._told = True  # first, since the log may lead here too
                name = getattr(self._stream, "name", "output")
                logging.warning("%s cannot be written: %s. The run goes on", name, error)
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error are `Lasting` meanwhile."""
    before = sys.stdout, sys.stderr
    streams: Any = [Lasting(stream) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.let_go()
