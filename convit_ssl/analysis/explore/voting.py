"""What the neighbours of an image say about its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

TEMPERATURE = 0.07  # as in DINO's kNN
_ROWS = 4096


@dataclass(frozen=True)
class Votes:
    """Votes of the labelled neighbours, each image left out of its own.

    Attributes:
        first: class with the most votes, -1 where nobody votes.
        second: the runner-up, -1 where all agree.
        share: of the first in all votes.
        margin: share of the first minus that of the second; NaN where nobody votes.
    """

    first: Int[np.ndarray, " images"]
    second: Int[np.ndarray, " images"]
    share: Float[np.ndarray, " images"]
    margin: Float[np.ndarray, " images"]


def vote(
    neighbours: Int[np.ndarray, "images k"],
    similarities: Float[np.ndarray, "images k"],
    targets: Int[np.ndarray, " images"],
    classes: int,
    groups: Int[np.ndarray, " images"],
    most: int = 20,
) -> Votes:
    """Weighted vote by exp(similarity / 0.07).

    Args:
        neighbours: rows of the nearest others, nearest first.
        similarities: cosine similarity to them.
        targets: class of each image, -1 without label; those do not vote.
        classes: number of them.
        groups: of each image, -1 without one; images of the same group do not vote.
        most: neighbours that vote.
    """
    images = len(targets)
    first, second = np.full(images, -1), np.full(images, -1)
    share, margin = np.zeros(images), np.full(images, np.nan)
    for start in range(0, images if classes else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        near = neighbours[rows]
        label = targets[near]
        votes = (label >= 0) & ((groups[near] != groups[rows, None]) | (groups[near] < 0))
        votes &= votes.cumsum(axis=1) <= most
        weight = np.exp((similarities[rows] - similarities[rows, :1]) / TEMPERATURE) * votes
        table = np.zeros((len(near), classes))
        np.add.at(table, (np.arange(len(near))[:, None], np.maximum(label, 0)), weight)
        total = table.sum(axis=1)
        some = total > 0
        table[some] /= total[some, None]
        best = table.argmax(axis=1)
        at = np.arange(len(near))
        top = table[at, best]
        table[at, best] = -1
        other = table.argmax(axis=1)
        runner = np.maximum(table[at, other], 0)
        first[rows] = np.where(some, best, -1)
        second[rows] = np.where(some & (runner > 0), other, -1)
        share[rows] = top
        margin[rows] = np.where(some, top - runner, np.nan)
    return Votes(first, second, share, margin)
