"""Typed results as plain data: the numbers of report.json, and what the page draws from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.analysis.attention import pack_attention
from convit_ssl.analysis.attribution import Attribution
from convit_ssl.analysis.features import FeatureMap
from convit_ssl.analysis.images import data_uri, sprite_sheet
from convit_ssl.analysis.locality import PositionalAttention
from convit_ssl.analysis.metrics import HeadSeries, downsample, downsample_heads
from convit_ssl.analysis.run_panels import data_panel, verdict_panel
from convit_ssl.analysis.summary import RunSummary

# Titles and order of the training curves; others follow by their own name.
CURVES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "weight_decay": "Weight decay",
    "momentum": "Teacher momentum",
    "knn": "kNN accuracy while training (weighted, cosine, sample)",
    "rankme": "RankMe (effective rank of the features)",
    "images_per_s": "Images per second",
    "feature_std": "Standard deviation of the features",
    "teacher_entropy": "Entropy of the teacher",
    "top1": "Top-1 accuracy on val",
    "top5": "Top-5 accuracy on val",
    "balanced_accuracy": "Balanced accuracy on val",
    "auc": "Area under the ROC curve on val",
    "accuracy": "Accuracy",
}
# Titles of curves that are shown on demand.
FURTHER_CURVES = {
    "grad_norm": "Norm of the gradient",
    "holdout": "Accuracy on the held-out part of train",
    "look_seconds": "Seconds of an evaluation of the features",
    "peak_memory_mib": "Peak memory (MiB)",
    "seconds": "Seconds per epoch",
    "unreadable": "Images of val that could not be read",
    "teacher_temperature": "Teacher temperature",
}
MOST_POINTS = 400
MOST_CURVES = 24


def plain(value: Any, digits: int = 6) -> Any:
    """Numbers, text, lists and dictionaries that strict JSON takes; NaN and infinity become null.

    Args:
        value: arrays, dataclasses, paths and mappings included.
        digits: significant digits of floating-point numbers.
    """
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), digits)
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return float(f"{number:.{digits}g}") if math.isfinite(number) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry, digits) for key, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {item.name: plain(getattr(value, item.name), digits) for item in fields}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, bytes):
        return [plain(entry, digits) for entry in value]
    return value.name if isinstance(value, Path) else str(value)


def numbers(summary: RunSummary) -> dict[str, Any]:
    """All figures of one run as numbers, downsampled as the page shows them."""
    run = summary.run
    classified = summary.features.classified if summary.features else None
    return {
        "name": run.name,
        "problems": summary.problems,
        "facts": _facts(summary),
        "curves": _curves(summary),
        "gates": _heads(summary.gates),
        "nonlocality_history": _heads(summary.nonlocality_history),
        "heads": _places(summary.now),
        "heads_at_init": _places(summary.start),
        "nonlocality": plain(summary.nonlocality),
        "class_accuracy": plain(classified),
        "classes": list(summary.features.classes) if summary.features else [],
        "attribution": [
            {
                "image": item.image.name,
                "method": item.method,
                "target": item.target,
                "probability": plain(item.probability),
                "residual": plain(item.residual),
                "values": plain(item.values, 4),
            }
            for item in summary.attributions
        ],
        "provenance": plain(summary.provenance),
        "config": plain(run.config),
    }


def page_run(summary: RunSummary, budget: int) -> dict[str, Any]:
    """What the page needs of one run: its numbers, pictures and packed attention.

    Args:
        summary: from `summarise_run`.
        budget: characters that its attention maps may take.
    """
    data = numbers(summary)
    titles = {**CURVES, **FURTHER_CURVES}
    data["titles"] = {key: titles.get(key, key.replace("_", " ")) for key in data["curves"]}
    data["folder"] = str(summary.run.folder)
    data["verdict"] = verdict_panel(summary.run)
    data["images"] = {**data_panel(summary.run), "check": summary.check}
    data["attention"] = None
    if summary.model is not None and summary.attention:
        data["attention"] = pack_attention(summary.attention, summary.model, budget)
    data["features"] = _feature_panel(summary.features) if summary.features else None
    classes = summary.features.classes if summary.features else ()
    data["attribution"] = [_attribution_panel(item, classes) for item in summary.attributions]
    return data


def _curves(summary: RunSummary) -> dict[str, Any]:
    series = summary.run.metrics.series
    order = [key for key in CURVES if key in series] + sorted(set(series) - set(CURVES))
    curves = {}
    for key in order[:MOST_CURVES]:
        short = downsample(series[key], MOST_POINTS)
        curves[key] = {"x": plain(short.epochs), "y": plain(short.values)}
    return curves


def _heads(series: HeadSeries | None) -> dict[str, Any] | None:
    if series is None:
        return None
    short = downsample_heads(series, 120)
    return {"x": plain(short.epochs), "y": plain(short.values, 4)}


def _places(places: PositionalAttention | None) -> dict[str, Any] | None:
    if places is None or not places.layers:
        return None
    return {**plain(places), "distances": plain(places.distances)}


def _facts(summary: RunSummary) -> dict[str, Any]:
    """The few figures at the top of a run."""
    facts: dict[str, Any] = {}
    series = summary.run.metrics.series
    if summary.run.metrics.last_epoch is not None:
        planned = summary.run.planned_epochs
        done = f"{summary.run.metrics.last_epoch:g}"
        facts["Epochs"] = done if planned is None else f"{done} of {planned:g}"
    if summary.model is not None:
        config = summary.model.config
        variant = summary.provenance.get("variant") or "ConViT"
        facts["Model"] = (
            f"{variant}: {config.depth} layers, {config.num_gpsa_layers} GPSA, "
            f"{config.num_heads} heads, width {config.embed_dim}"
        )
        facts["Input"] = f"{config.image_shape[1]} x {config.image_shape[0]} px"
    if summary.other is not None:
        height, width = summary.other.config.image_shape
        facts["Model"] = f"{summary.other.config.trunk}: {summary.other.config.embed_dim} features"
        facts["Input"] = f"{width} x {height} px"
    if "loss" in series:
        facts["Last loss"] = f"{series['loss'].values[-1]:.4g}"
    for key, title in (
        ("knn", "Last kNN while training"),
        ("top1", "Last top-1"),
        ("balanced_accuracy", "Last balanced accuracy"),
        ("auc", "Last AUC"),
        ("accuracy", "Last accuracy"),
    ):
        if key in series:
            facts[title] = f"{100 * series[key].values[-1]:.1f} %"
    if summary.now is not None and len(summary.now.layers) and np.isfinite(summary.now.gates).any():
        mean = float(np.nanmean(summary.now.gates))
        facts["Mean gate"] = f"{mean:.3f}"
    method = summary.provenance.get("method")
    return {"Method": str(method), **facts} if method else facts


def _feature_panel(features: FeatureMap) -> dict[str, Any]:
    columns = 16
    return {
        "points": plain(features.points, 4),
        "method": features.method,
        "explained": plain(features.explained, 3),
        "targets": plain(features.targets),
        "classes": list(features.classes),
        "neighbours": plain(features.neighbours[:, :6]),
        "similarities": plain(features.similarities[:, :6], 4),
        "names": list(features.names),
        "sheet": data_uri(sprite_sheet(features.thumbnails, columns), quality=80),
        "sheet_columns": columns,
        "classified": plain(features.classified, 4),
    }


def _attribution_panel(item: Attribution, classes: Sequence[str]) -> dict[str, Any]:
    """Shares relative to the strongest, averaged down to at most 112 cells a side."""
    values = item.values
    block = -(-max(values.shape) // 112)
    rows, columns = values.shape[0] // block, values.shape[1] // block
    cut = values[: rows * block, : columns * block]
    values = cut.reshape(rows, block, columns, block).sum(axis=(1, 3))
    peak = float(np.quantile(np.abs(values), 0.995)) or 1.0
    return {
        "name": item.image.name,
        "method": item.method.replace("_", " "),
        "target": classes[item.target] if item.target < len(classes) else str(item.target),
        "probability": plain(item.probability, 4),
        "residual": plain(item.residual, 3),
        "picture": data_uri(item.image.picture),
        "rows": rows,
        "columns": columns,
        "values": plain((values / peak).clip(-1, 1), 2),
    }
