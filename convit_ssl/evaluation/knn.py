"""k-nearest-neighbour classification by cosine similarity, exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.accuracy import (
    Accuracy,
    align_targets,
    confusion_matrix,
    measure,
    per_class_accuracy,
)
from convit_ssl.evaluation.feature_set import FeatureSet
from convit_ssl.evaluation.features import Progress

NEIGHBOURS = (10, 20, 100, 200)
# The figure that is quoted, fixed beforehand: choosing the best k would be looking at val.
HEADLINE = 20
TEMPERATURE = 0.07
MAJORITY = 5

Array = np.ndarray[Any, Any] | Tensor


@dataclass(frozen=True)
class KnnResult:
    """What kNN gave on val.

    Attributes:
        accuracy: k -> accuracy of the weighted vote.
        headline: the k that is quoted, and that the confusion matrix is of.
        majority: accuracy of the plain majority among 5 neighbours.
        confusion: (classes, classes) counts, rows are true classes.
        per_class: share recognised of each class, None without images.
        classes: names.
        notes: what was not done as asked.
    """

    accuracy: dict[int, Accuracy]
    headline: int
    majority: Accuracy
    confusion: np.ndarray[Any, Any]
    per_class: list[float | None]
    classes: Sequence[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.accuracy[self.headline].as_dict(),
            "headline_k": self.headline,
            "by_k": {str(k): value.as_dict() for k, value in self.accuracy.items()},
            "majority_5nn": self.majority.as_dict(),
            "per_class": dict(zip(map(str, self.classes), self.per_class, strict=True)),
            "confusion": self.confusion.tolist(),
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
) -> KnnResult:
    """Classify val by the labelled images of train, as DINO's protocol does.

    Every process of a torch.distributed group takes a share of val, and all get the result.

    Args:
        train: features to vote with.
        val: features to classify, of the same model.
        column: the kind of feature; the first by default, the class token.
        ks: numbers of neighbours; those above the images of train are cut down to them.
        temperature: of the votes' weights, exp(similarity / temperature).
        device: where similarities are computed.
        progress: called with (train images compared, train images).

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
    )
    names = train.classes or [str(i) for i in range(train.num_classes)]
    labels = torch.from_numpy(train.targets)[indices]
    truth = targets[val_rows]

    def vote(k: int, weights: Tensor) -> np.ndarray[Any, Any]:
        return weighted_vote(labels[:, :k], weights[:, :k], len(names)).numpy()

    weights = (similarities.double() / temperature).exp()
    predictions = {k: vote(k, weights) for k in wanted}
    majority = vote(min(MAJORITY, len(train_rows)), torch.ones_like(weights))
    headline = min(wanted, key=lambda k: abs(k - HEADLINE))
    confusion = confusion_matrix(predictions[headline], truth, len(names))
    return KnnResult(
        {k: measure(predicted, truth) for k, predicted in predictions.items()},
        headline,
        measure(majority, truth),
        confusion,
        per_class_accuracy(confusion),
        names,
        notes,
    )


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


def nearest_neighbours(
    train: Array,
    queries: Array,
    k: int,
    *,
    train_rows: np.ndarray[Any, Any] | None = None,
    query_rows: np.ndarray[Any, Any] | None = None,
    device: torch.device | str | None = None,
    train_chunk: int = 16384,
    query_chunk: int = 1024,
    progress: Progress | None = None,
) -> tuple[Int[Tensor, "queries k"], Float[Tensor, "queries k"]]:
    """The k most similar rows of train for each query, the nearest first.

    Exact: every pair is compared, in float32. Equal similarities are ordered by the row in
    train, so the answer does not depend on chunks or processes. Train is read once; memory is
    about train_chunk x query_chunk x 20 bytes, plus 8 k bytes a query.

    Args:
        train: (N, D) features, memory-mapped or in memory.
        queries: (M, D) features.
        k: neighbours, at most the rows of train.
        train_rows: which rows of train take part; all by default.
        query_rows: which queries do; all by default.
        device: where the similarities are computed.
        train_chunk: rows of train that are read at a time.
        query_chunk: queries that are compared with them at a time.
        progress: called with (train rows done, train rows).

    Returns:
        Row numbers in train, and cosine similarities, for the query rows in their order.
    """
    device = torch.device(device) if device is not None else processes.default_device()
    train_rows = np.arange(len(train)) if train_rows is None else train_rows
    query_rows = np.arange(len(queries)) if query_rows is None else query_rows
    starts = range(0, len(query_rows), query_chunk)[processes.rank() :: processes.world_size()]
    own = [query_rows[start : start + query_chunk] for start in starts]
    # Normalised queries stay on the device: an ImageNet val of ConViT-S is 86 MB.
    unit_queries = [unit_rows(queries, rows, device) for rows in own]
    best: list[Tensor] = [torch.empty(len(rows), 0, dtype=torch.int64) for rows in own]
    for first in range(0, len(train_rows), train_chunk):
        rows = train_rows[first : first + train_chunk]
        keys = unit_rows(train, rows, device).t()
        for i, query in enumerate(unit_queries):
            ranked = best_keys(query @ keys, torch.from_numpy(rows).to(device), k)
            ranked = torch.cat([best[i].to(device), ranked], dim=1)
            best[i] = ranked.topk(min(k, ranked.shape[1]), dim=1).values
        if progress is not None and processes.rank() == 0:
            progress(first + len(rows), len(train_rows))
    parts = {start: found.cpu() for start, found in zip(starts, best, strict=True)}
    merged = {start: found for part in processes.gather(parts) for start, found in part.items()}
    together = torch.cat([merged[start] for start in sorted(merged)])
    return decode_keys(together)


def unit_rows(
    features: Array, rows: np.ndarray[Any, Any], device: torch.device
) -> Float[Tensor, "rows dim"]:
    """Some rows, scaled to length one, on a device."""
    contiguous = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    span: Any = slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows
    chosen = features[span]
    tensor = chosen if isinstance(chosen, Tensor) else torch.from_numpy(np.array(chosen))
    return F.normalize(tensor.to(device, torch.float32), dim=1)


def best_keys(
    similarities: Float[Tensor, "queries keys"], rows: Int[Tensor, " keys"], k: int
) -> Int[Tensor, "queries _"]:
    """`rank_keys` of at least the k best of a chunk.

    Keys of all pairs would cost more than the pairs themselves, so the floats are sorted
    first; only where equal ones lie on both sides of the cut does the row have to decide.
    """
    if similarities.shape[1] > k:
        values, places = similarities.topk(k + 1, dim=1)
        if not bool((values[:, k - 1] == values[:, k]).any()):
            return rank_keys(values, rows[places])
    return rank_keys(similarities, rows)


def rank_keys(
    similarities: Float[Tensor, "queries keys"], rows: Int[Tensor, "*queries keys"]
) -> Int[Tensor, "queries keys"]:
    """Integers that sort by similarity first and by earlier row second.

    The bits of a float32, as a signed integer with the order of negative ones turned round,
    sort as the float does; they fill the upper half, the row the lower.
    """
    bits = similarities.contiguous().view(torch.int32)
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).long()
    return (ordered << 32) | (0xFFFFFFFF - rows)


def decode_keys(
    keys: Int[Tensor, "queries k"],
) -> tuple[Int[Tensor, "queries k"], Float[Tensor, "queries k"]]:
    """Rows and similarities out of `rank_keys`."""
    ordered = (keys >> 32).int()
    bits = torch.where(ordered >= 0, ordered, ordered ^ 0x7FFFFFFF)
    return 0xFFFFFFFF - (keys & 0xFFFFFFFF), bits.view(torch.float32)


def _clip(ks: Sequence[int], images: int, notes: list[str]) -> list[int]:
    if not ks or min(ks) < 1:
        raise UserError(f"numbers of neighbours are 1 or more, found {list(ks)}")
    too_many = sorted({k for k in ks if k > images})
    if too_many:
        asked = ", ".join(map(str, too_many))
        notes.append(f"train has {images} labelled images: k = {asked} became {images}")
    return sorted({min(k, images) for k in ks})
