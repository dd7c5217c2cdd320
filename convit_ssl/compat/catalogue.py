"""The purpose of each shim, read from its docstring without importing it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from convit_ssl.compat import AFTER, AROUND, PROVIDED

FIELDS = ("Broke", "Since", "Upstream", "Goes when")
# "Broke: ..." up to the next field; continuation lines are indented.
FIELD = re.compile(r"^(Broke|Since|Upstream|Goes when): (.+(?:\n[ ]{4}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class ShimNote:
    """One shim: its module's name, what it fixes, and the four fields of its docstring."""

    name: str
    mends: str
    broke: str
    since: str
    upstream: str
    goes_when: str


def shim_notes() -> list[ShimNote]:
    """The notes of all registered shims, in order of their names.

    Raises:
        ValueError: A docstring lacks a field.
    """
    return [_read(name) for name in sorted({*AFTER, *AROUND, *PROVIDED})]


def _read(name: str) -> ShimNote:
    path = Path(__file__).with_name(f"{name}.py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    fields = {key: " ".join(text.split()) for key, text in FIELD.findall(docstring)}
    missing = [key for key in FIELDS if key not in fields]
    if missing:
        raise ValueError(f"{path.name}: its docstring lacks {', '.join(missing)}")
    return ShimNote(name, docstring.splitlines()[0], *(fields[key] for key in FIELDS))


def markdown_table() -> str:
    """The table of docs/COMPAT.md."""
    head = "| shim | fixes | what happens without it | since | upstream | no longer needed when |"
    rows = [head, "|---|---|---|---|---|---|"]
    for note in shim_notes():
        cells = (
            f"`{note.name}`",
            note.mends,
            note.broke,
            note.since,
            note.upstream,
            note.goes_when,
        )
        rows.append("| " + " | ".join(cell.replace("``", "`") for cell in cells) + " |")
    return "\n".join(rows)
