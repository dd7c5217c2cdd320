"""k-nearest-neighbour classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.evaluation.accuracy import (
    Accuracy,
    ClassFigures,
    align_targets,
    class_figures,
    measure,
)
from convit_ssl.evaluation.features.extraction import Progress
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.neighbours import METRICS, nearest_neighbours

__all__ = ["METRICS", "KnnResult", "evaluate_knn", "knn_name", "nearest_neighbours"]

NEIGHBOURS = (10, 20, 100, 200)
# The figure that is quoted, fixed beforehand: choosing the best k would be looking at val.
HEADLINE = 20
TEMPERATURE = 0.07
MAJORITY = 5


def knn_name(
    k: int, weighted: bool = True, metric: str = "cosine", extent: str = "all images"
) -> str:
    """What a kNN figure is, in the same words wherever it is printed.

    Args:
        k: neighbours.
        weighted: whether near neighbours count more; else each has one vote.
        metric: one of `METRICS`.
        extent: "all images", "sample" (as while training), "within train" (both sides are images
            of train, as while training where others are held out) or "subset" (of train).
    """
    by = {"cosine": "cosine", "euclidean": "Euclidean"}[metric]
    return f"{'weighted' if weighted else 'plain'} {k}-NN ({by}, {extent})"


@dataclass(frozen=True)
class KnnResult:
    """What kNN gave on val.

    Attributes:
        accuracy: k -> accuracy of the weighted vote.
        headline: the k that is quoted, and that predictions and figures of classes are of.
        majority: accuracy of the plain majority among 5 neighbours.
        figures: of each class, for the headline.
        predictions: (labelled images of val,) classes, for the headline.
        truth: their true classes, in the numbering of train.
        metric: what neighbours are near by; one of `METRICS`.
        notes: what was not done as asked, and what a reader has to know.
    """

    accuracy: dict[int, Accuracy]
    headline: int
    majority: Accuracy
    figures: ClassFigures
    predictions: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any]
    metric: str
    notes: list[str]

    def name(self, extent: str = "all images") -> str:
        """What the headline is; see `knn_name`."""
        return knn_name(self.headline, True, self.metric, extent)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.accuracy[self.headline].as_dict(),
            **self.figures.as_dict(),
            "headline_k": self.headline,
            "metric": self.metric,
            "by_k": {str(k): value.as_dict() for k, value in self.accuracy.items()},
            "majority_5nn": self.majority.as_dict(),
            "confusion": self.figures.confusion.tolist(),
            "notes": self.notes,
        }


def evaluate_knn(
    train: FeatureSet,
    val: FeatureSet,
    column: str | None = None,
    ks: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    metric: str = "cosine",
) -> KnnResult:
    """Classify val by the labelled images of train, as DINO's protocol does.

    Every process of a torch.distributed group takes a share of val, and all get the result.

    Args:
        train: features to vote with.
        val: features to classify, of the same model.
        column: the kind of feature; the first by default, the class token.
        ks: numbers of neighbours; those above the images of train are cut down to them.
        temperature: of the votes' weights, exp(similarity / temperature), for cosine similarity;
            by Euclidean distance a neighbour's weight is 1 / distance.
        device: where similarities are computed.
        progress: called with (train images compared, train images).
        metric: one of `METRICS`.

    Raises:
        UserError: no labels, or classes in val that train does not have.
    """
    targets = align_targets(train, val)
    train_rows, val_rows = train.labelled(), val.labelled()
    notes: list[str] = []
    wanted = _clip(ks, len(train_rows), notes)
    indices, similarities = nearest_neighbours(
        train.column(column),
        val.column(column),
        k=min(max(*wanted, MAJORITY), len(train_rows)),
        train_rows=train_rows,
        query_rows=val_rows,
        device=device,
        progress=progress,
        metric=metric,
    )
    names = train.classes or [str(i) for i in range(train.num_classes)]
    labels = torch.from_numpy(train.targets)[indices]
    weights = vote_weights(similarities, temperature, metric)
    return _count_votes(labels, weights, targets[val_rows], names, wanted, metric, notes)


def _count_votes(
    labels: Int[Tensor, "queries k"],
    weights: Float[Tensor, "queries k"],
    truth: np.ndarray[Any, Any],
    names: Sequence[str],
    wanted: list[int],
    metric: str,
    notes: list[str],
) -> KnnResult:
    """The result for each number of neighbours, the nearest of which come first."""

    def vote(k: int, weights: Tensor) -> np.ndarray[Any, Any]:
        return weighted_vote(labels[:, :k], weights[:, :k], len(names)).numpy()

    predictions = {k: vote(k, weights) for k in wanted}
    majority = vote(MAJORITY, torch.ones_like(weights))
    headline = min(wanted, key=lambda k: abs(k - HEADLINE))
    scores = None
    if len(names) == 2:
        cast = weights[:, :headline]
        scores = ((cast * labels[:, :headline]).sum(dim=1) / cast.sum(dim=1)).numpy()
    figures = class_figures(predictions[headline], truth, names, scores)
    return KnnResult(
        {k: measure(predicted, truth) for k, predicted in predictions.items()},
        headline,
        measure(majority, truth),
        figures,
        predictions[headline],
        truth,
        metric,
        notes + figures.notes(),
    )


def vote_weights(
    similarities: Float[Tensor, "queries k"], temperature: float, metric: str = "cosine"
) -> Float[Tensor, "queries k"]:
    """Weights of neighbours, the nearest first, in float64; only their ratios matter.

    By cosine similarity exp(similarity / temperature), as DINO votes, over that of the nearest
    neighbour, so that no temperature overflows. By Euclidean distance 1 / distance, which has no
    scale to choose.
    """
    if metric == "cosine":
        exact = similarities.double()
        return ((exact - exact[:, :1]) / temperature).exp()
    distance = similarities.double().neg().clamp_min(0).sqrt()
    smallest = 1e-6 * distance.max().clamp_min(1e-30)
    return smallest / distance.clamp_min(smallest)


def weighted_vote(
    labels: Int[Tensor, "queries k"],
    weights: Float[Tensor, "queries k"],
    num_classes: int,
) -> Int[Tensor, " queries"]:
    """The class with the largest sum of weights; the first of them when several share it."""
    winners = []
    for first in range(0, len(labels), 4096):
        some = slice(first, first + 4096)
        votes = torch.zeros(len(labels[some]), num_classes, dtype=weights.dtype)
        winners.append(votes.scatter_add_(1, labels[some], weights[some]).argmax(dim=1))
    return torch.cat(winners)


def _clip(ks: Sequence[int], images: int, notes: list[str]) -> list[int]:
    if not ks or min(ks) < 1:
        raise UserError(f"numbers of neighbours are 1 or more, found {list(ks)}")
    too_many = sorted({k for k in ks if k > images})
    if too_many:
        asked = ", ".join(map(str, too_many))
        notes.append(f"train has {images} labelled images: k = {asked} became {images}")
    return sorted({min(k, images) for k in ks})
