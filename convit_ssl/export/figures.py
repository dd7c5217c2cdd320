"""Figures measured with a trunk, for its model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.reading import is_share, printable, read_json
from convit_ssl.runs import RunFolder


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: kNN, linear, ...
        value: as it is printed, with its unit.
        where: the data, or the epoch of the run.
        fingerprint: of everything the number depends on, short; "" where none was recorded.
        name: what was measured, in words.
        protocol: the settings of the measurement.
        weights: fingerprint of the weights that were measured; "" where none was recorded.
    """

    what: str
    value: str
    where: str
    fingerprint: str
    name: str = ""
    protocol: str = ""
    weights: str = ""


def of_these_weights(
    figures: Sequence[Figure], fingerprints: Collection[str]
) -> tuple[list[Figure], list[str]]:
    """The figures that were measured on these weights, and why each other one is left out.

    Args:
        figures: as `figures_from_results` gives them.
        fingerprints: of the weights, with and without a classifier.
    """
    kept = [figure for figure in figures if figure.weights in fingerprints]
    left_out = []
    for figure in figures:
        if figure not in kept:
            other = "of other weights" if figure.weights else "and does not say of which weights"
            left_out.append(f"{figure.what} of {figure.name or 'no name'}, {figure.value}: {other}")
    return kept, left_out


def figures_from_results(paths: Iterable[str | Path]) -> list[Figure]:
    """Read result rows, as `convit-ssl knn --json` and the other probes write them.

    Raises:
        UserError: a file without results, or with values that are not results.
    """
    figures = []
    for path in paths:
        value = read_json(path)
        rows = value if isinstance(value, list) else _rows_of(value)
        measured = [row for row in rows if isinstance(row, dict) and "accuracy" in row]
        if not measured:
            raise UserError(f"{path} holds no results: no row has an accuracy")
        figures += [_from_row(row, path) for row in measured]
    return figures


def figures_from_run(checkpoint: str | Path, provenance: Mapping[str, Any]) -> list[Figure]:
    """The online evaluation of the very weights in a run's checkpoint, if there was one.

    Args:
        checkpoint: of the run.
        provenance: of the trunk that was loaded from it. Online evaluation looks at the teacher
            of an epoch; of other weights and epochs it says nothing.
    """
    file = Path(checkpoint)
    if provenance.get("weights") == "student" and "teacher" in provenance.get("available", {}):
        return []
    position = (provenance.get("entry") or {}).get("position")
    if isinstance(position, list) and position[1:] != [0]:
        return []  # saved within an epoch, after what was measured
    for folder in (file, *file.parents[:2]):
        run = RunFolder(folder)
        if run.metrics.is_file():
            return _evaluation(run, provenance)
    return []


def _rows_of(value: Any) -> Sequence[Any]:
    if not isinstance(value, dict):
        return []
    rows = value.get("results", [value])
    return rows if isinstance(rows, list) else []


def _from_row(row: dict[str, Any], path: str | Path) -> Figure:
    if not is_share(row["accuracy"]):
        raise UserError(
            f"{path}: accuracy {printable(repr(row['accuracy']), 60)} is not a number from 0 to 1"
        )
    value = f"{100 * row['accuracy']:.1f} %"
    bounds = row.get("interval_95")
    if isinstance(bounds, list) and len(bounds) == 2 and all(map(is_share, bounds)):
        value += f" (95 % interval {100 * bounds[0]:.1f} - {100 * bounds[1]:.1f})"
    settings = row.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    where = str(row.get("data") or settings.get("data") or "")
    weights = row.get("weights")
    return Figure(
        printable(str(row.get("kind", "accuracy")), 80),
        value,
        printable(where, 80),
        short_hash(row.get("fingerprint")),
        printable(str(row.get("name") or ""), 120),
        _protocol(settings),
        weights if isinstance(weights, str) else "",
    )


def _protocol(settings: Mapping[str, Any]) -> str:
    """The settings that are on, in words."""
    shown = {k: v for k, v in settings.items() if k != "data" and v not in (None, False, "", [])}
    return printable(", ".join(f"{key} {value}" for key, value in shown.items()), 200)


def _evaluation(run: RunFolder, provenance: Mapping[str, Any]) -> list[Figure]:
    """The last online evaluation, if it is of the epoch of the weights."""
    found = _verdict(run, provenance)
    measured = [row for row in run.rows()[0] if "knn" in row]
    last = measured[-1] if measured else {}
    if last.get("epoch") != provenance.get("epoch") or not is_share(last.get("knn")):
        return found
    return [
        *found,
        Figure(
            "kNN",
            f"{100 * last['knn']:.1f} %",
            f"online, epoch {last.get('epoch', '?')} of the run",
            short_hash(last.get("fingerprint")),
            "this run",
            printable(
                f"while training, {last.get('knn_name') or 'on a sample of the images'}", 200
            ),
            str(provenance.get("fingerprint", "")),
        ),
    ]


def _verdict(run: RunFolder, provenance: Mapping[str, Any]) -> list[Figure]:
    """The accuracy that the run ended with, if its last epoch is that of the weights."""
    try:
        result = run.read_result()
    except UserError:  # damaged; the command says so where it needs it
        return []
    verdict = result.get("verdict")
    verdict = verdict if isinstance(verdict, Mapping) else {}
    score: Any = verdict.get("score")
    if result.get("epochs") != provenance.get("epoch") or not is_share(score):
        return []
    return [
        Figure(
            printable(f"{verdict.get('probe', '')} {verdict.get('metric', '')}".strip(), 80),
            f"{100 * score:.1f} %",
            "the run's verdict",
            short_hash(result.get("fingerprint")),
            "this run",
            printable(f"{verdict.get('labels')} labels, tested on {verdict.get('tested')}", 200),
            str(provenance.get("fingerprint", "")),
        )
    ]


def short_hash(fingerprint: Any) -> str:
    """Twelve digits that stand for a fingerprint, be it a hash or several by name."""
    if not fingerprint:
        return ""
    if isinstance(fingerprint, str):
        return fingerprint[:12]
    text = json.dumps(fingerprint, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
