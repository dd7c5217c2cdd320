"""A run outlives whoever reads what it prints: a terminal, a pipe, a file on a full disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from convit_ssl.printable import printable
from convit_ssl.starting import spoke


def spell_out(stream: object) -> None:
    r"""Let a stream write letters that it does not have as ``\xe9``, instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class Printable:
    """A text stream in which control characters are spelled out; the rest is the stream's own.

    rich, which has sequences of its own to write, finds the stream itself behind it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write; gives the number of characters that were asked for."""
        self.rich_proxied_file.write(printable(text))
        spoke()
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Standard output and error are `Printable` meanwhile."""
    before = sys.stdout, sys.stderr
    streams: Any = [_printable_stream(stream) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _printable_stream(stream: Any) -> Any:
    spell_out(stream)
    known = stream is None or isinstance(stream, (Printable, Lasting))
    return stream if known else Printable(stream)


class Lasting:
    """A text stream whose writing never fails; the rest is the stream's own.

    What cannot be written is dropped. The next line is tried again: a disk may have room then.

    Args:
        stream: standard output or error; None, as Python has it where it was closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115
        spell_out(self._stream)
        behind = getattr(self._stream, "rich_proxied_file", None)
        self.rich_proxied_file = self if behind is None else Lasting(behind)
        self._fails = self._told = False

    def write(self, text: str) -> int:
        """Write and flush; gives the number of characters, as if they had been written."""
        self._fails = not self._written(text)
        spoke()
        return len(text)

    def flush(self) -> None:
        """Flush what others wrote past this object."""
        self._written("")

    def let_go(self) -> None:
        """After a failure, what is written later, and at Python's end, goes nowhere."""
        if self.rich_proxied_file is not self:
            self.rich_proxied_file.let_go()
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
                logging.warning("%s cannot be written: %s. Training continues", name, error)
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error are `Lasting` meanwhile."""
    before = sys.stdout, sys.stderr
    streams: Any = [Lasting(_printable_stream(stream)) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.let_go()
