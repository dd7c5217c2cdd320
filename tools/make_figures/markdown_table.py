"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

Rows = list[list[str]]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; figures are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
