"""Accuracy with its uncertainty, and what it hides: classes of different sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.data.listing.names import some
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet


@dataclass(frozen=True)
class Accuracy:
    """Correct predictions out of all, with the 95 % Wilson interval.

    The interval is about the images of val as a sample; it says nothing of the spread over
    seeds of training. (Wilson 1927; it holds near 0 and 1, where the normal one does not.)
    """

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share of correct predictions, 0..1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of `value`."""
        z = 1.959963984540054
        n, p = self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accuracy": self.value,
            "interval_95": list(self.interval),
            "correct": self.correct,
            "total": self.total,
        }


def measure(predictions: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> Accuracy:
    """Top-1 accuracy of predicted classes (N,)."""
    return Accuracy(int((predictions == targets).sum()), len(targets))


def confusion_matrix(
    predictions: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], num_classes: int
) -> np.ndarray[Any, Any]:
    """(classes, classes) counts; rows are true classes, columns predicted ones."""
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def per_class_accuracy(confusion: np.ndarray[Any, Any]) -> list[float | None]:
    """Share of each class's images that were recognised; None for a class without images."""
    totals = confusion.sum(axis=1)
    return [
        float(right) / int(total) if total else None
        for right, total in zip(confusion.diagonal(), totals, strict=True)
    ]


@dataclass(frozen=True)
class ClassFigures:
    """What a classifier made of each class.

    Attributes:
        classes: names.
        confusion: (classes, classes) counts; rows are true classes, columns predicted ones.
        auc: of two classes, the area under the ROC curve; None for another number of classes,
            or where one has no images.
    """

    classes: Sequence[str]
    confusion: np.ndarray[Any, Any]
    auc: float | None = None

    @property
    def recall(self) -> list[float | None]:
        """Share of each class's images that were recognised; None for a class without images."""
        return per_class_accuracy(self.confusion)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images, 0..1."""
        return float(np.mean([share for share in self.recall if share is not None]))

    @property
    def absent(self) -> list[str]:
        """Classes without images."""
        totals = self.confusion.sum(axis=1)
        return [str(name) for name, total in zip(self.classes, totals, strict=True) if not total]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "balanced_accuracy": self.balanced_accuracy,
            "auc": self.auc,
            "per_class": dict(zip(map(str, self.classes), self.recall, strict=True)),
        }

    def notes(self) -> list[str]:
        """What a reader has to know of these figures."""
        absent = self.absent
        if not absent:
            return []
        return [
            f"val has no images of {len(absent)} of {len(self.classes)} classes "
            f"({some(absent)}): accuracy and balanced accuracy are over the other "
            f"{len(self.classes) - len(absent)}"
        ]


def class_figures(
    predictions: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    classes: Sequence[str],
    scores: np.ndarray[Any, Any] | None = None,
) -> ClassFigures:
    """Figures of each class.

    Args:
        predictions: (N,) classes.
        targets: (N,) true classes.
        classes: names.
        scores: (N,) larger where the second of two classes is more likely, for the ROC curve.
    """
    confusion = confusion_matrix(predictions, targets, len(classes))
    auc = None
    if len(classes) == 2 and scores is not None and len(np.unique(targets)) == 2:
        from sklearn.metrics import roc_auc_score

        auc = float(roc_auc_score(targets, scores))
    return ClassFigures(classes, confusion, auc)


def align_targets(train: FeatureSet, val: FeatureSet) -> np.ndarray[Any, Any]:
    """The targets of val (N,) in the numbering of train's classes.

    Raises:
        UserError: images of val belong to classes that train does not have.
    """
    if not train.classes or not val.classes:
        return val.targets
    number = {name: index for index, name in enumerate(train.classes)}
    used = np.unique(val.targets[val.targets >= 0])
    unknown = [val.classes[i] for i in used if val.classes[i] not in number]
    if unknown:
        raise UserError(
            f"val has {len(unknown)} classes that train does not have: "
            f"{', '.join(map(repr, unknown[:5]))}{' ...' if len(unknown) > 5 else ''}; "
            f"train has {len(number)}, from {train.classes[0]!r} to {train.classes[-1]!r}. "
            "Use the same class names in both"
        )
    translate = np.array([number.get(name, -1) for name in val.classes] + [-1])
    aligned: np.ndarray[Any, Any] = translate[val.targets]
    return aligned
