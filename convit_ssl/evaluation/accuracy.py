"""An accuracy with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.errors import UserError
from convit_ssl.evaluation.feature_set import FeatureSet


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
            "Name the class folders alike"
        )
    translate = np.array([number.get(name, -1) for name in val.classes] + [-1])
    aligned: np.ndarray[Any, Any] = translate[val.targets]
    return aligned
