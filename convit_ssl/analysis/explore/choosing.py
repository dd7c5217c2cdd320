"""Which images to label next, and which labels to look at again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from jaxtyping import Bool, Float, Int

from convit_ssl.analysis.explore.voting import Votes

_SAMPLE = 4_000  # images among which coverage is computed: memory grows with their square
MOST = 100


@dataclass(frozen=True)
class Choice:
    """An image and why it was chosen."""

    row: int
    reason: str


def cover(
    components: Float[np.ndarray, "images axes"],
    labelled: Bool[np.ndarray, " images"],
    most: int = MOST,
    seed: int = 0,
) -> list[Choice]:
    """Images that stand for many others which no labelled image stands for yet.

    Greedy k-medoids (facility location; Nemhauser et al. 1978): each choice lowers the sum of
    squared distances from all images to the nearest one with a label the most, so the first n are
    a good choice for every n. Odd images gain little and come late, unlike in greedy k-centre.

    Args:
        components: principal components of the features.
        labelled: which images have a label.
        most: images to choose.
        seed: of the sample of 4,000 in a larger collection.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(components))[:_SAMPLE])
    space = components[rows].astype(np.float32)
    squares = np.square(space).sum(axis=1)
    far = np.maximum(squares[:, None] + squares - 2 * space @ space.T, 0)
    known = np.flatnonzero(labelled[rows])
    candidates = np.flatnonzero(~labelled[rows])
    # Without any label the first choice is the medoid: everything is as far as it could be.
    nearest = far[known].min(axis=0) if len(known) else np.full(len(rows), far.max())
    chosen: list[int] = []
    while len(chosen) < min(most, len(candidates)):
        gains = np.maximum(nearest - far[candidates], 0).sum(axis=1)
        gains[np.isin(candidates, chosen)] = -1
        best = int(candidates[gains.argmax()])
        chosen.append(best)
        nearest = np.minimum(nearest, far[best])
    if not chosen:
        return []
    closest = np.array([*known, *chosen])[far[[*known, *chosen]].argmin(axis=0)]
    scale = len(components) / len(rows)
    counts = [max(1, round(float((closest == row).sum()) * scale)) for row in chosen]
    about = "about " if scale > 1 else ""
    return [
        Choice(int(rows[row]), f"represents {about}{n:,} {'image' if n == 1 else 'images'}")
        for row, n in zip(chosen, counts, strict=True)
    ]


def unsure(
    votes: Votes,
    labelled: Bool[np.ndarray, " images"],
    neighbours: Int[np.ndarray, "images k"],
    classes: list[str],
    most: int = MOST,
) -> list[Choice]:
    """Images without a label whose neighbours disagree the most, no two of them neighbours."""
    rows = np.flatnonzero(~labelled & (votes.margin < 0.5))
    rows = rows[np.argsort(votes.margin[rows], kind="stable")]
    chosen: list[Choice] = []
    near: set[int] = set()
    for row in rows:
        if len(chosen) == most:
            break
        if int(row) in near:
            continue
        near.update(int(other) for other in neighbours[row])
        one, other = classes[votes.first[row]], classes[votes.second[row]]
        share = votes.share[row]
        rest = share - votes.margin[row]
        reason = f"neighbours disagree: {share:.0%} {one}, {rest:.0%} {other}"
        chosen.append(Choice(int(row), reason))
    return chosen


def label_next(coverage: list[Choice], uncertainty: list[Choice], most: int = MOST) -> list[Choice]:
    """Both kinds in turn, each image once."""
    mixed: dict[int, Choice] = {}
    for pair in zip_longest(coverage, uncertainty):
        for one in pair:
            if one is not None:
                mixed.setdefault(one.row, one)
    return list(mixed.values())[:most]


def doubtful(
    votes: Votes,
    targets: Int[np.ndarray, " images"],
    classes: list[str],
    most: int = MOST,
) -> list[Choice]:
    """Labelled images whose neighbours agree on another label, the surest first."""
    wrong = np.flatnonzero((targets >= 0) & (votes.first >= 0) & (votes.first != targets))
    wrong = wrong[votes.share[wrong] >= 0.8]
    wrong = wrong[np.argsort(-votes.share[wrong], kind="stable")][:most]
    return [
        Choice(
            int(row),
            # A card shows its label above this, and has room for a few words.
            f"neighbours: {classes[votes.first[row]]}, {100 * votes.share[row]:.0f} %",
        )
        for row in wrong
    ]
