"""One result of several folds: every image was tested once, so predictions are joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from convit_ssl.evaluation.accuracy import Accuracy, ClassFigures
from convit_ssl.evaluation.probes.knn import KnnResult
from convit_ssl.evaluation.probes.linear import LinearResult


def pool_accuracies(parts: Sequence[Accuracy]) -> Accuracy:
    """Correct predictions of all folds together."""
    return Accuracy(sum(part.correct for part in parts), sum(part.total for part in parts))


def pool_figures(parts: Sequence[ClassFigures]) -> ClassFigures:
    """Counts of all folds together; the area under the ROC curve is the mean over folds."""
    confusion: np.ndarray[Any, Any] = np.sum([part.confusion for part in parts], axis=0)
    areas = [part.auc for part in parts if part.auc is not None]
    auc = float(np.mean(areas)) if len(areas) == len(parts) else None
    return ClassFigures(parts[0].classes, confusion, auc)


def pool_knn(parts: Sequence[KnnResult]) -> KnnResult:
    """KNN of all folds as one result; numbers of neighbours that all folds had."""
    if len(parts) == 1:
        return parts[0]
    common = [k for k in parts[0].accuracy if all(k in part.accuracy for part in parts)]
    headline = parts[0].headline
    accuracy = {k: pool_accuracies([part.accuracy[k] for part in parts]) for k in common}
    accuracy[headline] = pool_accuracies([part.accuracy[part.headline] for part in parts])
    return dataclasses.replace(
        parts[0],
        accuracy=dict(sorted(accuracy.items())),
        majority=pool_accuracies([part.majority for part in parts]),
        figures=pool_figures([part.figures for part in parts]),
        predictions=np.concatenate([part.predictions for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def pool_linear(parts: Sequence[LinearResult]) -> LinearResult:
    """Linear probes of all folds as one result; the head shown is the first fold's."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    logistic = [part.logistic for part in parts if part.logistic is not None]
    figures = [part.logistic_figures for part in parts if part.logistic_figures is not None]
    return dataclasses.replace(
        first,
        accuracy=pool_accuracies([part.accuracy for part in parts]),
        figures=pool_figures([part.figures for part in parts]),
        predictions=np.concatenate([part.predictions for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        held_out=float(np.mean([part.held_out for part in parts])),
        logistic=pool_accuracies(logistic) if logistic else None,
        logistic_figures=pool_figures(figures) if figures else None,
        images={
            "train": round(float(np.mean([part.images["train"] for part in parts]))),
            "held_out": round(float(np.mean([part.images["held_out"] for part in parts]))),
            "val": sum(part.images["val"] for part in parts),
        },
    )
