"""The page of a study: sample efficiency, ablations, accuracy against size and speed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from convit_ssl import __version__
from convit_ssl.analysis import published
from convit_ssl.analysis.page import build_page, write_text
from convit_ssl.analysis.serialise import plain
from convit_ssl.errors import UserError

# Where a row may keep each quantity; the first name that is there counts.
_NAMES = {
    "model": ("model", "variant", "trunk", "arch"),
    "fraction": ("fraction", "share"),
    "ablation": ("ablation", "preset"),
    "start": ("start", "init", "initialisation", "pretrained"),
    "study": ("study",),
    "parameters": ("parameters", "params", "num_parameters"),
    "images_per_s": ("images_per_s",),
    "data": ("data", "dataset"),
}


@dataclass(frozen=True)
class StudyPoint:
    """The mean over seeds of one setting.

    Attributes:
        name: the setting in words: model, start, ablation.
        model: name of the variant, empty where unknown.
        ablation: name of the preset, None outside of ablations.
        fraction: share of the labelled images, 0..1; None where unknown.
        accuracy: mean over the seeds, 0..1.
        spread: sample standard deviation over the seeds; None for one seed.
        seeds: how many.
        parameters: number of parameters, None where unknown.
        images_per_s: mean training speed, None where unknown.
    """

    name: str
    model: str
    ablation: str | None
    fraction: float | None
    accuracy: float
    spread: float | None
    seeds: int
    parameters: float | None
    images_per_s: float | None


def read_study(paths: Sequence[Path]) -> tuple[list[StudyPoint], list[str]]:
    """Average the rows of results.json files by setting; damaged rows are counted as problems.

    A file is a list of rows or an object with the list under "results" or "rows". A row has
    `accuracy` (0..1) and what it was measured with, at its top or under "settings".

    Raises:
        UserError: a file cannot be read, or no row has an accuracy.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    damaged = 0
    for path in paths:
        for row in _rows(path):
            accuracy = row.get("accuracy") if isinstance(row, Mapping) else None
            if isinstance(accuracy, bool) or not isinstance(accuracy, (int, float)):
                damaged += 1
                continue
            found = {name: _find(row, names) for name, names in _NAMES.items()}
            found["accuracy"] = float(accuracy)
            key = tuple(str(found[name]) for name in ("data", "model", "start", "ablation"))
            groups.setdefault((*key, _fraction(found["fraction"])), []).append(found)
    if not groups:
        raise UserError(f"{', '.join(map(str, paths))}: no row with an accuracy")
    problems = [f"Left out for want of an accuracy: {damaged} rows."] if damaged else []
    points = [_point(rows, key[-1]) for key, rows in groups.items()]
    single = sum(point.seeds == 1 for point in points)
    if single:
        problems.append(f"{single} of {len(points)} settings were run with one seed only.")
    return points, problems


def write_comparison(paths: Sequence[Path], folder: Path) -> Path:
    """Write comparison.html and comparison.json.

    Args:
        paths: results.json files of `convit-ssl study`.
        folder: is made where it does not exist.

    Raises:
        UserError: see `read_study`.
    """
    points, problems = read_study(paths)
    made = time.strftime("%Y-%m-%d %H:%M:%S %z")
    data = {
        "points": plain(points),
        "problems": problems,
        "published": {
            "source": published.SOURCE,
            "models": plain(published.MODELS),
            "sample_efficiency": [
                {"fraction": share, "convit": convit, "deit": deit}
                for share, (convit, deit) in published.SAMPLE_EFFICIENCY.items()
            ],
            "ablations": [
                {"name": name, "full": full, "tenth": tenth}
                for name, (full, tenth) in published.ABLATIONS.items()
            ],
        },
        "footer": f"Made {made} by convit_ssl {__version__}.",
    }
    write_text(folder / "comparison.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
    page = folder / "comparison.html"
    subtitle = f"{len(points)} settings · made {made}"
    title = f"Comparison: {', '.join(path.parent.resolve().name for path in paths)}"
    write_text(page, build_page("comparison", title, subtitle, data))
    return page


def _rows(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if isinstance(content, Mapping):
        content = content.get("results", content.get("rows"))
    if not isinstance(content, list):
        raise UserError(f"{path} holds no list of results; give the results.json of a study")
    return content


def _find(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    settings = row.get("settings")
    for place in (row, settings if isinstance(settings, Mapping) else {}):
        for name in names:
            if isinstance(place.get(name), (str, int, float)):
                return place[name]
    return None


def _fraction(value: Any) -> float | None:
    """0..1, from a share, a percentage or text such as "10%"."""
    if isinstance(value, str):
        text = value.strip()
        try:
            number = float(text.rstrip("%"))
        except ValueError:
            return None
        value = number / 100 if text.endswith("%") else number
    if not isinstance(value, (int, float)):
        return None
    return round(value / 100 if value > 1 else float(value), 6)


def _point(rows: Sequence[Mapping[str, Any]], fraction: float | None) -> StudyPoint:
    first = rows[0]
    accuracies = [row["accuracy"] for row in rows]
    words = [str(first[name]) for name in ("model", "start", "ablation") if first[name]]
    return StudyPoint(
        ", ".join(words) or "unnamed",
        str(first["model"] or ""),
        str(first["ablation"]) if first["ablation"] else None,
        fraction,
        fmean(accuracies),
        stdev(accuracies) if len(rows) > 1 else None,
        len(rows),
        _mean(rows, "parameters"),
        _mean(rows, "images_per_s"),
    )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if isinstance(row[name], (int, float))]
    return fmean(known) if known else None
