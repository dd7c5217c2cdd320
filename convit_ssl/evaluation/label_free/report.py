"""Label-free scores for a screen: in words, and only those that are worth anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from convit_ssl.evaluation.label_free.scores import PASSED, SCORES

Row = Mapping[str, Any]


def scores_table(rows: Sequence[Row]) -> Table:
    """One line per network, one column per score."""
    table = Table(title="label-free scores", title_justify="left", title_style="bold", box=None)
    table.add_column("", overflow="fold")
    for score in SCORES.values():
        table.add_column(score.title, justify="right")
    for row in rows:
        cells = (_number(row["scores"].get(name)) for name in SCORES)
        table.add_row(str(row["name"]), *cells)
    return table


def scores_lines(rows: Sequence[Row], passed: Sequence[str] = PASSED) -> list[str]:
    """What the scores say of the last row beside the others, in sentences.

    Args:
        rows: the network last; before it what it is compared with.
        passed: the scores that may be spoken of.
    """
    if not passed:
        return [
            "None of these scores has been shown to rank networks reliably (convit-ssl study "
            "scores measures it), so none is interpreted; --json writes them. Labels for a few "
            "images of each class say more: convit-ssl knn CKPT --references"
        ]
    *references, own = rows
    lines = []
    for name in passed:
        value = own["scores"].get(name)
        if value is None:
            continue
        others = [
            f"{row['name']} {_number(row['scores'][name])}"
            for row in references
            if row["scores"].get(name) is not None
        ]
        below = [row for row in references if _at_least(row["scores"].get(name), value)]
        word = "not above" if below else "above"
        against = f", {word} its references ({', '.join(others)})" if others else ""
        lines.append(f"{SCORES[name].title}: {_number(value)}{against}")
    lines.append(
        "These scores ranked networks by accuracy on every collection of our study. They are not "
        "an accuracy; with labels, use convit-ssl knn CKPT --references"
    )
    return lines


def _at_least(other: float | None, value: float) -> bool:
    return other is not None and other >= value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
