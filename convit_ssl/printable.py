"""Text that may hold names of files, made safe to print on a terminal and in a log."""

from __future__ import annotations

import logging
import re

# Everything that moves a cursor, starts an escape sequence or turns the direction of reading.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Control characters as ``\x1b``; line feeds and tabs stay."""
    return _CONTROL.sub(_spelled, text)


class PrintableFormatter(logging.Formatter):
    """A log's formatter that spells control characters out."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry, its traceback included."""
        return printable(super().format(record))


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
