"""What a run wrote while it trained: metrics.jsonl, read line by line and never trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder

# Per-layer, per-head quantities; the others are single numbers.
NESTED_KEYS = ("gates", "nonlocality", "centre_distances", "widths")
_SHARES = {"knn", "knn_pixels", "top1", "top5", "two_view"}
_BOOKKEEPING = {"kind", "epoch", "step", "iteration", "time", "timestamp", "phase", "rank"}


@dataclass(frozen=True)
class Series:
    """One quantity over the epochs of a run.

    Attributes:
        epochs: where it was measured; fractions inside an epoch.
        values: NaN or infinite where training wrote that.
    """

    epochs: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]


@dataclass(frozen=True)
class HeadSeries:
    """One quantity of every layer and head over the epochs of a run."""

    epochs: Float[np.ndarray, " points"]
    values: Float[np.ndarray, "points layers heads"]


@dataclass
class Metrics:
    """All that metrics.jsonl holds.

    Attributes:
        series: single numbers by their name in the file.
        heads: per-layer, per-head quantities by name (see NESTED_KEYS).
        problems: what was skipped or looks wrong, one sentence each.
        last_epoch: the largest epoch seen; None without any.
    """

    series: dict[str, Series] = field(default_factory=dict)
    heads: dict[str, HeadSeries] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    last_epoch: float | None = None


def read_metrics(folder: RunFolder) -> Metrics:
    """Read a run's metrics.jsonl; a missing file or damaged lines end up in `problems`."""
    metrics = Metrics()
    path = folder.metrics
    try:
        rows, damaged = folder.rows()
    except UserError as error:
        metrics.problems.append(f"No training curves: {error}.")
        return metrics
    except OSError as error:
        metrics.problems.append(f"No training curves: {path.name}: {error.strerror}.")
        return metrics
    if damaged:
        shown = ", ".join(str(number) for number in damaged[:5])
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        metrics.problems.append(
            f"{path.name}: skipped lines that are damaged or not JSON objects: {shown}{more}."
        )
    if not rows:
        metrics.problems.append(f"{path.name} contains no measurements yet.")
        return metrics
    rows, repeated = _without_repeats(rows)
    if repeated:
        metrics.problems.append(
            f"{repeated} measurements were repeated after a restart; the later ones are shown."
        )
    _collect(rows, metrics)
    return metrics


def downsample(series: Series, most: int) -> Series:
    """At most `most` points that keep the first, the last and each stretch's extremes.

    Args:
        series: any number of points.
        most: at least 4.
    """
    points = len(series.values)
    if points <= most:
        return series
    keep = {0, points - 1}
    finite = np.where(np.isfinite(series.values), series.values, np.nan)
    for chunk in np.array_split(np.arange(points), (most - 2) // 2):
        if np.isfinite(finite[chunk]).any():
            keep.add(int(chunk[np.nanargmin(finite[chunk])]))
            keep.add(int(chunk[np.nanargmax(finite[chunk])]))
    chosen = np.array(sorted(keep))
    return Series(series.epochs[chosen], series.values[chosen])


def downsample_heads(series: HeadSeries, most: int) -> HeadSeries:
    """At most `most` evenly spaced points, the first and the last among them."""
    points = len(series.epochs)
    if points <= most:
        return series
    chosen = np.unique(np.linspace(0, points - 1, most).round().astype(int))
    return HeadSeries(series.epochs[chosen], series.values[chosen])


def _without_repeats(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Drop what a resumed run measured a second time; rows without a place are all kept."""
    latest: dict[Any, int] = {}
    for index, row in enumerate(rows):
        kind, epoch, step = (row.get(key) for key in ("kind", "epoch", "step"))
        # An evaluation may come in several rows, one per quantity.
        names = tuple(sorted(key for key in row if key not in _BOOKKEEPING))
        place = (str(kind), str(epoch), str(step) if kind == "step" else None, names)
        latest[place if epoch is not None or step is not None else index] = index
    keep = sorted(latest.values())
    return [rows[index] for index in keep], len(rows) - len(keep)


def _collect(rows: Sequence[Mapping[str, Any]], metrics: Metrics) -> None:
    steps_in_epoch: dict[float, int] = {}
    for row in rows:
        if row.get("kind") == "step" and _number(row.get("epoch")) is not None:
            epoch = float(row["epoch"])
            steps_in_epoch[epoch] = steps_in_epoch.get(epoch, 0) + 1
    by_epoch: dict[str, list[tuple[float, Any]]] = {}
    by_step: dict[str, list[tuple[float, Any]]] = {}
    seen: dict[float, int] = {}
    for index, row in enumerate(rows):
        place = _number(row.get("epoch"))
        epoch = float(index) if place is None else place
        target = by_epoch
        if row.get("kind") == "step":
            seen[epoch] = seen.get(epoch, 0) + 1
            if epoch.is_integer():  # epochs count from 1; the last step of the first ends at 1
                epoch = epoch - 1 + seen[epoch] / steps_in_epoch.get(epoch, seen[epoch])
            target = by_step
        if math.isfinite(epoch):
            for key, value in row.items():
                if key not in _BOOKKEEPING:
                    target.setdefault(key, []).append((epoch, value))
            metrics.last_epoch = max(epoch, metrics.last_epoch or 0.0)
    # Steps are finer but noisier: they stand in only where an epoch line lacks the quantity.
    for key, points in {**by_step, **by_epoch}.items():
        if len(points) == 1 and len(by_step.get(key, [])) > 1:
            points = by_step[key]
        points.sort(key=lambda point: point[0])
        if key in NESTED_KEYS:
            _add_heads(key, points, metrics)
        else:
            _add_series(key, points, metrics)


def _add_series(key: str, points: Sequence[tuple[float, Any]], metrics: Metrics) -> None:
    numbers = [(epoch, _number(value)) for epoch, value in points]
    kept = [(epoch, value) for epoch, value in numbers if value is not None]
    if not kept:
        return
    wrong = sum(value is not None and _number(value) is None for _, value in points)
    if key in _SHARES:
        within = [(epoch, value) for epoch, value in kept if not (value < 0 or value > 1)]
        wrong += len(kept) - len(within)
        kept = within
    if wrong:
        kind = "numbers from 0 to 1" if key in _SHARES else "numbers"
        metrics.problems.append(
            f"{key}: {wrong} of {len(points)} measurements are not {kind} and are left out."
        )
    if not kept:
        return
    epochs, values = np.array(kept, dtype=float).T
    metrics.series[key] = Series(epochs, values)
    broken = ~np.isfinite(values)
    if broken.any():
        metrics.problems.append(
            f"{key} is not finite in {int(broken.sum())} of {len(values)} measurements, first at "
            f"epoch {epochs[broken][0]:g}."
        )


def _add_heads(key: str, points: Sequence[tuple[float, Any]], metrics: Metrics) -> None:
    shapes: dict[tuple[int, ...], list[tuple[float, np.ndarray]]] = {}
    for epoch, value in points:
        try:
            # None stands for a layer or head without the quantity.
            array = np.array(value, dtype=float)
        except (TypeError, ValueError):
            continue
        if array.ndim == 2 and array.size:
            shapes.setdefault(array.shape, []).append((epoch, array))
    if not shapes:
        return
    kept = max(shapes.values(), key=len)
    if len(kept) < len(points):
        metrics.problems.append(
            f"{key}: {len(points) - len(kept)} of {len(points)} measurements have a different "
            f"shape and are left out."
        )
    epochs = np.array([epoch for epoch, _ in kept], dtype=float)
    metrics.heads[key] = HeadSeries(epochs, np.stack([array for _, array in kept]))


def _number(value: Any) -> float | None:
    """A float for anything that is a number; None otherwise (text, lists, null, booleans)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
