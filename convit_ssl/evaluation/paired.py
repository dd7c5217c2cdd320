"""Differences between two classifiers on the same test images, with their uncertainty.

The unit that is drawn anew is the image, or the group of images (patient, plate, series) where
images of a group resemble each other: images of one patient are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.errors import UserError

Values = np.ndarray[Any, Any]
RESAMPLES = 10_000
LEVEL = 0.95
# The largest class against the smallest one, from which on classes count alike.
UNEVEN = 1.5
EXACT_UNITS = 16  # sign flips of so many units are all tried


@dataclass(frozen=True)
class Predictions:
    """What several classifiers said of the same test images.

    Attributes:
        truth: (N,) classes.
        correct: name -> (N,) whether it was right.
        groups: (N,) numbers of groups; None where each image stands for itself.
        folds: (N,) the fold that an image was tested in; None for one test set.
    """

    truth: Values
    correct: dict[str, Values]
    groups: Values | None = None
    folds: Values | None = None

    def __post_init__(self) -> None:
        for name, value in self.correct.items():
            if len(value) != len(self.truth):
                raise ValueError(f"{name}: {len(value)} predictions for {len(self.truth)} images")

    @property
    def uneven(self) -> bool:
        """Whether classes differ so much in size that the largest would decide alone."""
        counts = np.unique(self.truth, return_counts=True)[1]
        return bool(counts.max() > UNEVEN * counts.min())

    def units(self) -> Values:
        """(N,) number of what is drawn anew: the group, or the image."""
        if self.groups is None:
            return np.arange(len(self.truth))
        bare = self.groups < 0  # an image without a group stands for itself
        own = np.where(bare, self.groups.max(initial=0) + 1 + np.arange(len(bare)), self.groups)
        return np.unique(own, return_inverse=True)[1]

    def score(self, name: str, balanced: bool) -> float:
        """Accuracy, or the mean over classes of the share recognised, 0..1."""
        right = self.correct[name].astype(float)
        return float(right @ image_weights(self.truth, balanced))


@dataclass(frozen=True)
class Difference:
    """How much better one classifier is than another, as shares 0..1.

    Attributes:
        value: score of the first minus that of the second.
        low: of the 95 % interval.
        high: of the 95 % interval.
        p_value: of no difference, two-sided, by sign flips of the units; for single images and
            plain accuracy this is McNemar's exact test.
        units: images, groups, folds or seeds that the interval is about.
    """

    value: float
    low: float
    high: float
    p_value: float
    units: int

    @property
    def is_better(self) -> bool:
        """Whether interval and test both say that the first is better."""
        return self.low > 0 and self.p_value <= 1 - LEVEL

    @property
    def is_worse(self) -> bool:
        """Whether interval and test both say that the first is worse."""
        return self.high < 0 and self.p_value <= 1 - LEVEL

    def in_points(self) -> str:
        """In percentage points: +1.2 (95 % interval -0.3 to +2.7)."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:+.1f} (95 % interval {low:+.1f} to {high:+.1f})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "difference": self.value,
            "interval_95": [self.low, self.high],
            "p_value": self.p_value,
            "units": self.units,
        }


def image_weights(truth: Values, balanced: bool) -> Values:
    """What each image adds to a score when it is right; the weights sum to 1."""
    if not balanced:
        return np.full(len(truth), 1 / len(truth))
    _, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    weights: Values = 1 / (len(counts) * counts[inverse])
    return weights


def compare(
    predictions: Predictions, first: str, second: str, balanced: bool, seed: int = 0
) -> Difference:
    """The paired difference of two classifiers.

    The interval is the percentile bootstrap over units, its percentiles widened for few units
    as Hesterberg proposes (The American Statistician 69, 2015, section 5.3): by t instead of z
    and by n / (n - 1). Folds share what they learn from, so that of a k-fold is wider by Nadeau
    and Bengio's correction (Machine Learning 52, 2003): about half as wide again.

    Args:
        predictions: on the same images.
        first: name of what is asked about.
        second: name of what it is compared with.
        balanced: by balanced accuracy.
        seed: of the resampling.
    """
    units = predictions.units()
    count = int(units.max(initial=-1)) + 1
    weights = image_weights(predictions.truth, balanced)
    gain = predictions.correct[first].astype(float) - predictions.correct[second].astype(float)
    value = float(gain @ weights)
    if count < 2:
        return Difference(value, -1.0, 1.0, 1.0, count)
    low, high = _bootstrap(predictions.truth, gain, units, balanced, seed)
    if predictions.folds is not None:
        wider = fold_correction(len(np.unique(predictions.folds)))
        low, high = value - wider * (value - low), value + wider * (high - value)
    p_value = sign_flip_p(np.bincount(units, gain * weights, minlength=count), seed)
    return Difference(value, low, high, p_value, count)


def _bootstrap(
    truth: Values, gain: Values, units: Values, balanced: bool, seed: int
) -> tuple[float, float]:
    """The interval by drawing units with replacement."""
    classes = np.unique(truth, return_inverse=True)[1] if balanced else np.zeros(len(truth), int)
    width, count = int(classes.max()) + 1, int(units.max()) + 1
    gains, sizes = np.zeros((count, width)), np.zeros((count, width))
    np.add.at(gains, (units, classes), gain)
    np.add.at(sizes, (units, classes), 1)
    # Units that are alike are drawn together: single images are of at most 3 kinds a class.
    cells, times = np.unique(np.hstack([gains, sizes]), axis=0, return_counts=True)
    gains, sizes = cells[:, :width], cells[:, width:]
    generator = np.random.default_rng(seed)
    values: list[Values] = []
    chunk = max(1, min(RESAMPLES, 4_000_000 // len(cells)))
    for first in range(0, RESAMPLES, chunk):
        draws = min(chunk, RESAMPLES - first)
        drawn = generator.multinomial(count, times / count, size=draws).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(np.nanmean((drawn @ gains) / (drawn @ sizes), axis=1))
    tail = _widened_tail(count)
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return float(low), float(high)


def _widened_tail(count: int) -> float:
    """The share to cut off at each end so that few units are not trusted too much."""
    from scipy import special  # a fifth of the import of scipy.stats

    t = special.stdtrit(count - 1, (1 - LEVEL) / 2)
    return float(special.ndtr(math.sqrt(count / (count - 1)) * t))


def fold_correction(folds: int) -> float:
    """How much wider an interval is because folds share what they learn from.

    Nadeau and Bengio's correction of the variance of a mean over folds: 1/k + test/train in place
    of 1/k. As a factor on the standard error it is the square root of 1 + k/(k - 1).
    """
    return math.sqrt(1 + folds / (folds - 1))


def sign_flip_p(differences: Values, seed: int = 0) -> float:
    """Two-sided p-value of a sum of differences whose signs are due to chance.

    All signs are tried for up to 16 units that differ, a binomial counts them where all are of
    one size (McNemar's exact test), and 20,000 draws stand for the rest.
    """
    from scipy import special

    moved = differences[np.abs(differences) > 1e-15]
    if len(moved) == 0:
        return 1.0
    sizes = np.abs(moved)
    if np.allclose(sizes, sizes[0]):
        fewer = min(int((moved > 0).sum()), int((moved < 0).sum()))
        return min(1.0, 2 * float(special.bdtr(fewer, len(moved), 0.5)))
    seen = abs(float(moved.sum()))
    if len(moved) <= EXACT_UNITS:
        bits = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        sums = np.abs((2 * bits - 1) @ sizes)
        return float((sums >= seen - 1e-12).mean())
    generator = np.random.default_rng(seed)
    larger, draws = 1, 20_000
    for _ in range(0, draws, 2000):
        signs = generator.integers(0, 2, (2000, len(moved)), dtype=np.int8) * 2.0 - 1.0
        larger += int((np.abs(signs @ sizes) >= seen - 1e-12).sum())
    return larger / (draws + 1)


def over_seeds(differences: Sequence[float]) -> Difference:
    """The mean of paired differences over seeds, with its t interval.

    Raises:
        UserError: fewer than two seeds, which have no spread.
    """
    from scipy import special

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        raise UserError("an interval over seeds needs at least two seeds")
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    error, freedom = spread / math.sqrt(len(values)), len(values) - 1
    half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p_value = 1.0 if spread == 0 and mean == 0 else 0.0
    if spread > 0:
        p_value = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p_value, len(values))
