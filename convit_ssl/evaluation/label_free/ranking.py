"""Does a score rank networks as their accuracy does? Spearman's correlation, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 5_000
LEVEL = 0.95
# A score passes where the interval lies above 0 on every collection, and the mean is this or more.
NEEDED = 0.5
COLLECTIONS, NETWORKS = 3, 30  # of a study that may pass one, at least; networks of a collection

Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of a score with accuracy over networks.

    Attributes:
        value: Spearman's rho, -1 to 1; 0 where the score is the same for all.
        low, high: 95 % interval, from networks drawn anew (bootstrap, percentiles).
        networks: that were compared.
    """

    value: float
    low: float
    high: float
    networks: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "rho": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "networks": self.networks,
        }


def rank_correlation(
    scores: Sequence[float], accuracies: Sequence[float], seed: int = 0
) -> Correlation:
    """Spearman's correlation of scores with accuracies, one pair per network.

    Raises:
        ValueError: fewer than three networks, or lists of unequal length.
    """
    first, second = np.asarray(scores, float), np.asarray(accuracies, float)
    if len(first) != len(second) or len(first) < 3:
        raise ValueError(f"{len(first)} scores and {len(second)} accuracies; three pairs at least")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(first), (RESAMPLES, len(first)))
    found = _spearman(stats.rankdata(first[drawn], axis=1), stats.rankdata(second[drawn], axis=1))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    value = float(_spearman(stats.rankdata(first)[None], stats.rankdata(second)[None])[0])
    return Correlation(value, float(low), float(high), len(first))


def _spearman(first: Values, second: Values) -> Values:
    """Pearson's correlation of ranks, row by row; 0 where all ranks of a row are the same."""
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    lengths = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    products: Values = (first * second).sum(axis=1)
    found: Values = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return found


def passes(by_collection: Mapping[str, Correlation]) -> bool:
    """Whether a score ranks networks right on every collection, by the rule of `NEEDED`."""
    found = list(by_collection.values())
    return (
        len(found) >= COLLECTIONS
        and all(one.networks >= NETWORKS and one.low > 0 for one in found)
        and float(np.mean([one.value for one in found])) >= NEEDED
    )
