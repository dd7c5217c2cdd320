"""What the report says first of a run: the verdict, the data, and what could not be read."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convit_ssl.analysis.runs import Run
from convit_ssl.data.checks.collection import COLUMNS, KINDS, counted
from convit_ssl.errors import UserError
from convit_ssl.reading import read_text
from convit_ssl.runs import RunFolder, race_reason
from convit_ssl.sealed import changed_since, read_line

# Rows in the page; the files hold all of them.
MOST_UNREADABLE = 200


def verdict_panel(run: Run) -> dict[str, Any] | None:
    """The verdict of a run against its references, as its result.json has it.

    Returns:
        Plain data with text, outcome ("better", "not better", ...), metric, what it was tested on,
        a row for each reference in percentage points, the reason and advice; None without a
        verdict.
    """
    verdict = RunFolder(run.folder).read_result().get("verdict")
    if not isinstance(verdict, Mapping) or not isinstance(verdict.get("text"), str):
        return None
    against = verdict.get("against")
    rows = [
        {
            "name": str(name),
            "difference": _points(found.get("difference")),
            "interval": [_points(bound) for bound in found.get("interval_95") or ()],
        }
        for name, found in (against.items() if isinstance(against, Mapping) else ())
        if isinstance(found, Mapping)
    ]
    return {
        "text": verdict["text"],
        "why": str(verdict.get("why") or ""),
        "outcome": str(verdict.get("outcome", "")),
        "metric": f"{verdict.get('probe', '')} {verdict.get('metric', '')}".strip(),
        "tested": str(verdict.get("tested", "")),
        "labels": verdict.get("labels"),
        "against": rows,
        "advice": [str(text) for text in verdict.get("advice") or ()],
    }


def read_check(path: Path) -> dict[str, Any]:
    """What `convit-ssl check` found, for the panel of the images.

    Args:
        path: of the check.csv that it wrote, or of its folder.

    Raises:
        UserError: it cannot be read, or is another table.
    """
    path = path / "check.csv" if path.is_dir() else path
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if table.fieldnames != list(COLUMNS):
        raise UserError(
            f"--check {path}: not a table that convit-ssl check wrote (its columns are "
            f"{', '.join(COLUMNS)}); make one with convit-ssl check DATA"
        )
    rows = list(table)
    counts = Counter(row["kind"] for row in rows)
    shown = sorted(rows, key=lambda row: KINDS.index(row["kind"]) if row["kind"] in KINDS else 99)
    changed = changed_since(path)
    return {
        **({"changed": changed} if changed else {}),
        "table": str(path),
        "counts": [counted(kind, counts[kind]) for kind in KINDS if counts[kind]],
        "count": len(rows),
        "rows": [
            [row["kind"], row["file"], row["other_file"] or "", row["detail"] or ""]
            for row in shown[:MOST_UNREADABLE]
        ],
    }


def data_panel(run: Run) -> dict[str, Any]:
    """The images that a run learned from, with full paths.

    Returns:
        Facts by name, and the unreadable files with their reasons.
    """
    facts = run.config.get("facts")
    if not isinstance(facts, Mapping):
        facts = RunFolder(run.folder).read_result().get("data")
    facts = facts if isinstance(facts, Mapping) else {}
    size = facts.get("native_size")
    named = {
        "Data set": facts.get("name"),
        "Folder": facts.get("folder"),
        "Training images": _count(facts.get("images")),
        "Classes": _count(facts.get("classes")),
        "Size": f"{size[1]} x {size[0]} px" if isinstance(size, list) and len(size) == 2 else None,
        "Subset": facts.get("subset"),
        "Chosen by a race": race_reason(run.config),
        "Run folder": str(run.folder.resolve()),
    }
    unreadable = _unreadable(run.folder)
    return {
        "facts": {name: str(value) for name, value in named.items() if value not in (None, "")},
        "unreadable": unreadable[:MOST_UNREADABLE],
        "unreadable_count": len(unreadable),
        "warnings": _warnings(RunFolder(run.folder).log),
    }


def _points(value: Any) -> float | None:
    return round(100 * value, 1) if isinstance(value, (int, float)) else None


def _count(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) and value else None


def _unreadable(folder: Path) -> list[list[str]]:
    """Path and reason of each unreadable file, in the order found."""
    found: dict[str, str] = {}
    for line in _lines(RunFolder(folder).unreadable):
        entry = read_line(line)
        if entry is not None and "path" in entry:
            found[str(entry["path"])] = str(entry.get("reason", ""))
    return [[path, reason] for path, reason in found.items()]


def _warnings(path: Path) -> list[str]:
    """Warnings of this package about the data, as the run logged them, each once."""
    marks = (f" {logging.getLevelName(logging.WARNING)} convit_ssl.data",)
    found = [line.split(": ", 1)[-1] for line in _lines(path) if any(m in line for m in marks)]
    return [text for text in dict.fromkeys(found) if not text.startswith("unreadable image")][:20]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
