"""Text files that people write: lists and tables."""

from __future__ import annotations

import codecs

# PowerShell's > writes UTF-16, Excel and Notepad begin UTF-8 with a mark.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decoded(data: bytes) -> str:
    """Text as editors and spreadsheets save it, with a byte order mark or without.

    Raises:
        UnicodeDecodeError: neither UTF-8 nor, after its mark, UTF-16.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8")
