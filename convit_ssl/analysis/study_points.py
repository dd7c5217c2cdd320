"""The results.json files of studies, averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.reading import is_share, read_json

# Where a row may keep each quantity; the first name that is there counts.
_NAMES = {
    "model": ("model", "variant", "trunk"),
    "fraction": ("fraction",),
    "ablation": ("ablation", "preset"),
    "start": ("start", "init"),
    "parameters": ("parameters", "params"),
    "images_per_s": ("images_per_s",),
}


@dataclass(frozen=True)
class StudyPoint:
    """The mean over seeds of one setting.

    Attributes:
        name: the setting in words.
        model: name of the variant, empty where unknown.
        ablation: name of the ablation, None outside of ablations.
        fraction: share of the labelled images, 0..1; None where unknown.
        accuracy: mean over the seeds, 0..1.
        spread: sample standard deviation over the seeds; None for one seed.
        seeds: how many.
        parameters: number of parameters, None where unknown.
        images_per_s: mean training speed, None where unknown.
        published: the paper's figure for this setting, 0..1; None where it has none.
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
    published: float | None


def read_study(paths: Sequence[Path]) -> tuple[list[StudyPoint], list[str]]:
    """Average the rows of results.json files by setting; what is amiss becomes a problem.

    A file is what `convit-ssl study` writes (rows under "results", arms under "summary"), or a
    plain list of rows. A row has `accuracy` (0..1) and what it was measured with, at its top or
    under "settings".

    Raises:
        UserError: a file cannot be read, no row has an accuracy, or rows of one setting were
            measured on different things.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    problems, damaged = [], 0
    for path in paths:
        content = _read(path)
        arms = _arms(content)
        for row in content["results"]:
            accuracy = row.get("accuracy") if isinstance(row, Mapping) else None
            if not is_share(accuracy):
                damaged += 1
                continue
            found = _row(row, content, arms)
            groups.setdefault((str(path), found["name"], found["fraction"]), []).append(found)
        failed = content.get("failed")
        if isinstance(failed, Mapping) and failed:
            problems.append(f"Failed runs are left out: {', '.join(map(str, failed))}.")
    if not groups:
        raise UserError(f"{', '.join(map(str, paths))}: no row with an accuracy")
    if damaged:
        problems.append(f"Left out because they have no accuracy: {damaged} rows.")
    points = [_point(rows) for rows in groups.values()]
    single = sum(point.seeds == 1 for point in points)
    if single:
        problems.append(f"Run with one seed only: {single} of {len(points)} settings.")
    return points, problems


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    content = {"results": content} if isinstance(content, list) else content
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise UserError(f"{path} holds no list of results; give the results.json of a study")
    kinds = {row.get("kind", "study") for row in content["results"] if isinstance(row, Mapping)}
    if kinds - {"study"}:
        raise UserError(
            f"{path} holds rows of {', '.join(sorted(map(str, kinds)))}, which `convit-ssl "
            "results` prints; give the results.json of a study"
        )
    return content


def _arms(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Arm and fraction, as text, to its line of the study's own summary."""
    summary = content.get("summary")
    lines = [line for line in summary if isinstance(line, Mapping)] if summary else []
    return {f"{line.get('name')}/{_fraction(line.get('fraction'))}": line for line in lines}


def _row(
    row: Mapping[str, Any], content: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    found = {name: _find(row, names) for name, names in _NAMES.items()}
    found["fraction"] = _fraction(found["fraction"])
    found["accuracy"] = float(row["accuracy"])
    found["fingerprint"] = row.get("fingerprint")
    arm = arms.get(f"{row.get('name')}/{found['fraction']}", {})
    found["published"] = arm.get("paper")
    found["model"] = found["model"] or arm.get("trunk")
    words = [str(found[name]) for name in ("model", "start", "ablation") if found[name]]
    found["name"] = str(row.get("name") or ", ".join(words) or "unnamed")
    if content.get("study") == "ablation" and not found["ablation"]:
        found["ablation"] = found["name"]
    if found["parameters"] is None:
        found["parameters"] = _parameters(str(found["model"]))
    return found


def _parameters(model: str) -> int | None:
    """Of a known variant without its classifier."""
    import torch

    from convit_ssl.models import VARIANTS, create_model
    from convit_ssl.models.trunks import TRUNKS, TrunkConfig, count_parameters

    if model in TRUNKS:
        return count_parameters(TrunkConfig(model))
    if model not in VARIANTS:
        return None
    with torch.device("meta"):
        built = create_model(model, num_classes=0)
    return sum(parameter.numel() for parameter in built.parameters())


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


def _point(rows: Sequence[Mapping[str, Any]]) -> StudyPoint:
    first = rows[0]
    if any(row["fingerprint"] != first["fingerprint"] for row in rows):
        raise UserError(
            f"rows of {first['name']!r} were measured on different images, weights or settings "
            "(their fingerprints differ) and are not averaged"
        )
    accuracies = [row["accuracy"] for row in rows]
    published = first["published"]
    return StudyPoint(
        first["name"],
        str(first["model"] or ""),
        str(first["ablation"]) if first["ablation"] else None,
        first["fraction"],
        fmean(accuracies),
        stdev(accuracies) if len(rows) > 1 else None,
        len(rows),
        _mean(rows, "parameters"),
        _mean(rows, "images_per_s"),
        float(published) if isinstance(published, (int, float)) else None,
    )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if isinstance(row[name], (int, float))]
    return float(fmean(known)) if known else None
