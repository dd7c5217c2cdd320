"""Figures measured with a trunk, for its model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: kNN, linear, ...
        value: as it is printed, with its unit.
        where: the data, or the epoch of the run.
        fingerprint: of everything the number depends on, short; "" where none was recorded.
    """

    what: str
    value: str
    where: str
    fingerprint: str


def figures_from_results(paths: Iterable[str | Path]) -> list[Figure]:
    """Read result rows, as `convit-ssl knn --json` and the other probes write them.

    Raises:
        UserError: a file without results.
    """
    figures = []
    for path in paths:
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read results from {path}: {error}") from error
        rows = value if isinstance(value, list) else _rows_of(value)
        measured = [row for row in rows if isinstance(row, dict) and "accuracy" in row]
        if not measured:
            raise UserError(f"{path} holds no results: no row has an accuracy")
        figures += [_from_row(row) for row in measured]
    return figures


def figures_from_run(checkpoint: str | Path) -> list[Figure]:
    """The last online evaluation of the run that a checkpoint belongs to, if it has one."""
    file = Path(checkpoint)
    for folder in (file, *file.parents[:2]):
        metrics = folder / "metrics.jsonl"
        if metrics.is_file():
            return _last_evaluation(metrics)
    return []


def _rows_of(value: Any) -> Sequence[Any]:
    if not isinstance(value, dict):
        return []
    rows = value.get("results", [value])
    return rows if isinstance(rows, list) else []


def _from_row(row: dict[str, Any]) -> Figure:
    value = f"{100 * float(row['accuracy']):.1f} %"
    low, high = (row.get("interval_95") or (None, None))[:2]
    if low is not None and high is not None:
        value += f" (95 % interval {100 * low:.1f} - {100 * high:.1f})"
    settings = row.get("settings") or {}
    where = str(row.get("data") or settings.get("data") or row.get("name") or "")
    return Figure(
        str(row.get("kind", "accuracy")), value, where, short_hash(row.get("fingerprint"))
    )


def _last_evaluation(metrics: Path) -> list[Figure]:
    last: dict[str, Any] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a run that was cut off in mid-line
            continue
        if isinstance(record, dict) and isinstance(record.get("knn"), int | float):
            last = record
    if not last:
        return []
    value = float(last["knn"])
    percent = 100 * value if value <= 1 else value
    where = f"online, epoch {last.get('epoch', '?')} of the run"
    return [Figure("kNN", f"{percent:.1f} %", where, short_hash(last.get("fingerprint")))]


def short_hash(fingerprint: Any) -> str:
    """Twelve digits that stand for a fingerprint, be it a hash or several by name."""
    if not fingerprint:
        return ""
    if isinstance(fingerprint, str):
        return fingerprint[:12]
    text = json.dumps(fingerprint, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
