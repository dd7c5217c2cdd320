"""The arithmetic of a division: which image, or which group, goes to which part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def rank_of(seed: int, name: str) -> bytes:
    """What names are ordered by at random: the same for any version of any library."""
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def assign(
    files: Sequence[str],
    targets: Ints,
    groups: Ints,
    group_names: Sequence[str],
    shares: Sequence[float],
    seed: int,
    holdout: bool,
) -> tuple[Ints, list[str]]:
    """A part for each image.

    Without groups each class is cut by itself, in an order given by hashes of the names. With
    groups, whole groups are dealt out in random order, large ones first, to the part whose
    shares of the classes they bring nearest to what was asked (as scikit-learn's
    StratifiedGroupKFold, for unequal shares too).

    Args:
        files: names.
        targets: (N,) classes; one value for all without labels.
        groups: (N,) -1 without groups.
        group_names: of the groups.
        shares: of the parts, which sum to 1.
        seed: of the order.
        holdout: part 0 is the test and part 1 is learned from; otherwise each part is a fold.

    Returns:
        (N,) part of each image; of a k-fold, -1 stands outside of all folds, for what can be
        learned from but not tested. And notes, in which {7} stands for the name of class 7.
    """
    if len(groups) and groups[0] >= 0:
        return _by_group(targets, groups, group_names, np.array(shares), seed, holdout)
    parts = np.zeros(len(files), np.int64)
    notes: list[str] = []
    for label in np.unique(targets):
        members = sorted(
            np.flatnonzero(targets == label), key=lambda i: rank_of(seed, files[int(i)])
        )
        if len(members) == 1 and label >= 0:
            parts[members] = _training(holdout)
            notes.append(
                f"class {{{label}}} has only one image, which is used for training and not tested"
            )
        elif holdout:
            held = min(max(round(len(members) * shares[0]), 1), len(members) - 1)
            parts[members[held:]] = 1
        else:
            # Where a class does not divide evenly, the odd images go to different folds.
            first = int.from_bytes(rank_of(seed, f"class {label}")[:4], "big")
            parts[members] = (np.arange(len(members)) + first) % len(shares)
    return parts, notes


def _training(holdout: bool) -> int:
    """The part that is never tested: the second of a hold-out, outside of all folds."""
    return 1 if holdout else -1


def _by_group(
    targets: Ints,
    groups: Ints,
    names: Sequence[str],
    shares: Floats,
    seed: int,
    holdout: bool,
) -> tuple[Ints, list[str]]:
    labels, columns = np.unique(targets, return_inverse=True)
    counts = np.zeros((len(names), len(labels)))
    np.add.at(counts, (groups, columns), 1)
    alone = (counts > 0).sum(axis=0) == 1  # classes that lie in one group
    if labels[0] < 0:
        alone[:] = False  # no labels: nothing is learned of a class
    kept = (counts[:, alone] > 0).any(axis=1)
    part = np.full(len(names), _training(holdout), np.int64)
    totals = np.maximum(counts.sum(axis=0), 1)
    held = np.zeros((len(shares), len(labels)))
    if holdout:
        held[1] += counts[kept].sum(axis=0)
    sizes = counts.sum(axis=1) / counts.sum()
    order = sorted(
        np.flatnonzero(~kept).tolist(),
        key=lambda g: (
            -sizes[g] if sizes[g] > shares.min() / 2 else 0.0,
            rank_of(seed, names[g]),
        ),
    )
    for group in order:
        part[group] = _nearest(held, counts[group], totals, shares)
        held[part[group]] += counts[group]
    _fill_empty(part, counts, order, len(shares))
    if labels[0] >= 0:
        _spread(part, counts, order, len(shares), holdout)
    notes = [
        f"class {{{label}}} lies in one group ({names[int(np.flatnonzero(counts[:, i])[0])]}): "
        "it is learned from and not tested"
        for i, label in enumerate(labels)
        if alone[i]
    ]
    return part[groups], notes


def _nearest(held: Floats, added: Floats, totals: Floats, shares: Floats) -> int:
    """The part whose classes come nearest to its share when it takes a group."""
    costs = []
    for part in range(len(shares)):
        after = held.copy()
        after[part] += added
        filled = after / totals / shares[:, None]
        costs.append(float(np.square(filled - 1).mean(axis=1) @ shares))
    return int(np.argmin(np.round(costs, 12)))


def _fill_empty(part: Ints, counts: Floats, order: Sequence[int], parts: int) -> None:
    """Give a part that got nothing the smallest group of one that has several."""
    for empty in range(parts):
        donors = [g for g in order if (part == part[g]).sum() > 1]
        if donors and not (part == empty).any():
            part[min(donors, key=lambda g: counts[g].sum())] = empty


def _spread(part: Ints, counts: Floats, order: Sequence[int], parts: int, holdout: bool) -> None:
    """Let no test have all groups of a class: nothing would be left to learn the class from."""
    for _ in range(counts.shape[1]):
        moved = False
        for column in range(counts.shape[1]):
            holders = np.flatnonzero(counts[:, column])
            tests = part[holders[0]] != _training(holdout)
            if tests and len(holders) > 1 and len(set(part[holders])) == 1:
                smallest = min((g for g in order if g in holders), key=lambda g: counts[g].sum())
                part[smallest] = 1 if holdout else (part[smallest] + 1) % parts
                moved = True
        if not moved:
            return
