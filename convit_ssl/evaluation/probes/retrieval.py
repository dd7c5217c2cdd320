"""Instance retrieval: are the images most similar to an image of the same kind?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convit_ssl.errors import UserError

Values = np.ndarray[Any, Any]
_CHUNK = 512


@dataclass(frozen=True)
class Retrieval:
    """What was found for each query.

    Attributes:
        queries: (Q,) rows of the images that were asked for.
        first: (Q,) rank of the first image of the same kind, from 1.
        precision: (Q,) average precision, 0..1.
    """

    queries: Values
    first: Values
    precision: Values

    def recall(self, k: int) -> float:
        """Share of queries with an image of their kind among the k most similar, 0..1."""
        return float((self.first <= k).mean())

    def mean_precision(self) -> float:
        """mAP, 0..1."""
        return float(self.precision.mean())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recall@1": self.recall(1),
            "recall@5": self.recall(5),
            "map": self.mean_precision(),
            "queries": len(self.queries),
        }


def retrieve(
    features: Float[Tensor, "images dim"],
    kinds: Values,
    apart: Values | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Retrieval:
    """Each image of a kind that has others asks for them, by cosine similarity.

    Args:
        features: of all images.
        kinds: (N,) what counts as the same; -1 for images that ask nothing and match nothing.
        apart: (N,) images of the same number (a patient, say) are no candidates for each other;
            -1 for images that stand alone. None for no such numbers.
        device: where similarities are computed.
        progress: called with the number of images that have been compared, and of all.

    Raises:
        UserError: no image has another of its kind.
    """
    unit = F.normalize(features.float(), dim=1).to(device)
    kind = torch.from_numpy(np.asarray(kinds)).to(device)
    group = None if apart is None else torch.from_numpy(np.asarray(apart)).to(device)
    queries, first, precision = [], [], []
    for start in range(0, len(unit), _CHUNK):
        rows = torch.arange(start, min(start + _CHUNK, len(unit)), device=device)
        alike = unit[rows] @ unit.T
        barred = rows[:, None] == torch.arange(len(unit), device=device)
        if group is not None:
            barred |= (group[rows, None] == group) & (group[rows, None] >= 0)
        same = (kind[rows, None] == kind) & (kind[rows, None] >= 0) & ~barred
        order = alike.masked_fill(barred, -torch.inf).argsort(dim=1, descending=True, stable=True)
        hits = same.gather(1, order)
        asked = hits.any(dim=1)
        hits = hits[asked].double()
        ranks = torch.arange(1, hits.shape[1] + 1, device=device)
        found = (hits.cumsum(dim=1) / ranks * hits).sum(dim=1) / hits.sum(dim=1)
        queries.append(rows[asked].cpu().numpy())
        first.append(hits.argmax(dim=1).cpu().numpy() + 1)
        precision.append(found.cpu().numpy())
        if progress is not None:
            progress(start + len(rows), len(unit))
    made = Retrieval(*(np.concatenate(part) for part in (queries, first, precision)))
    if not len(made.queries):
        raise UserError(
            "no image has another one of its kind, so there is nothing to retrieve; give labels or "
            "--group-by whose groups have two images or more"
        )
    return made
