"""What a probe said of each image, kept until it is compared with another probe's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.paired import Predictions

Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tested:
    """Predictions on the images of a test, fold after fold.

    Attributes:
        sets: features to learn from and to test on, of the last fold.
        learned: labelled images that a fold learns from.
        paths: of the tested images.
        truth: (N,) classes.
        predicted: (N,) classes.
        groups: (N,) numbers of groups, or None.
        folds: (N,) the fold of each image, or None for one test set.
        entry: what the checkpoint says of its run.
    """

    sets: Mapping[str, FeatureSet]
    learned: int
    paths: Sequence[str]
    truth: Values
    predicted: Values
    groups: Values | None = None
    folds: Values | None = None
    entry: Any = None

    @property
    def correct(self) -> Values:
        """(N,) whether each prediction was right."""
        right: Values = self.predicted == self.truth
        return right


def join(named: Sequence[tuple[str, Tested]]) -> Predictions:
    """Predictions of several probes on the images that all of them tested.

    Raises:
        UserError: they tested different images, or named their classes in another order.
    """
    first = named[0][1]
    common = set(first.paths)
    for _, one in named[1:]:
        common &= set(one.paths)
    if not common:
        raise UserError("these results share no test image, so they cannot be compared")
    correct: dict[str, Values] = {}
    truths: list[Values] = []
    kept = np.array([path in common for path in first.paths])
    order = [path for path, keep in zip(first.paths, kept, strict=True) if keep]
    for name, one in named:
        place = {path: position for position, path in enumerate(one.paths)}
        rows = np.array([place[path] for path in order])
        correct[name] = one.correct[rows]
        truths.append(one.truth[rows])
    if any((truth != truths[0]).any() for truth in truths):
        raise UserError(
            "these results number their classes differently, so they cannot be compared"
        )
    groups = None if first.groups is None else first.groups[kept]
    folds = None if first.folds is None else first.folds[kept]
    return Predictions(truths[0], correct, groups, folds)
