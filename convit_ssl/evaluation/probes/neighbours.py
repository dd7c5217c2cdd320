"""The nearest neighbours of features: exact, in bounded memory, the same for any chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.evaluation import processes
from convit_ssl.evaluation.features.extraction import Progress

METRICS = ("cosine", "euclidean")
Array = np.ndarray[Any, Any] | Tensor


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
    metric: str = "cosine",
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
        metric: "cosine" or "euclidean".

    Returns:
        Row numbers in train, and cosine similarities or minus the squared Euclidean distances,
        for the query rows in their order.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; one of {', '.join(METRICS)}")
    device = torch.device(device) if device is not None else processes.default_device()
    train_rows = np.arange(len(train)) if train_rows is None else train_rows
    query_rows = np.arange(len(queries)) if query_rows is None else query_rows
    starts = range(0, len(query_rows), query_chunk)[processes.rank() :: processes.world_size()]
    own = [query_rows[start : start + query_chunk] for start in starts]
    # Normalised queries stay on the device: an ImageNet val of ConViT-S is 86 MB.
    prepare = unit_rows if metric == "cosine" else plain_rows
    asked = [prepare(queries, rows, device) for rows in own]
    best: list[Tensor] = [torch.empty(len(rows), 0, dtype=torch.int64) for rows in own]
    for first in range(0, len(train_rows), train_chunk):
        rows = train_rows[first : first + train_chunk]
        keys = prepare(train, rows, device)
        for i, query in enumerate(asked):
            near = query @ keys.t() if metric == "cosine" else minus_squared_distances(query, keys)
            ranked = best_keys(near, torch.from_numpy(rows).to(device), k)
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
    return F.normalize(plain_rows(features, rows, device), dim=1)


def plain_rows(
    features: Array, rows: np.ndarray[Any, Any], device: torch.device
) -> Float[Tensor, "rows dim"]:
    """Some rows in float32 on a device."""
    contiguous = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    span: Any = slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows
    chosen = features[span]
    tensor = chosen if isinstance(chosen, Tensor) else torch.from_numpy(np.array(chosen))
    return tensor.to(device, torch.float32)


def minus_squared_distances(
    queries: Float[Tensor, "queries dim"], keys: Float[Tensor, "keys dim"]
) -> Float[Tensor, "queries keys"]:
    """Of every pair, by |q|^2 + |k|^2 - 2 q.k with both shifted by the queries' mean."""
    centre = queries.mean(dim=0)
    queries, keys = queries - centre, keys - centre
    squares = queries.square().sum(dim=1, keepdim=True) + keys.square().sum(dim=1)
    return 2 * (queries @ keys.t()) - squares


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
