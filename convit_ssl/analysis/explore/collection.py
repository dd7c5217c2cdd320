"""All that the page and the table say about a collection, from its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from convit_ssl.analysis.explore.choosing import Choice, cover, doubtful, label_next, unsure
from convit_ssl.analysis.explore.clusters import cluster, examples
from convit_ssl.analysis.explore.layout import place, principal_axes
from convit_ssl.analysis.explore.outliers import outlier_score
from convit_ssl.analysis.explore.voting import Votes, vote

_COMPONENTS = 16  # principal components that clusters and coverage see
_LOCAL = 15  # neighbours that the map and the outlier factor see
SHOWN_NEIGHBOURS = 12


@dataclass(frozen=True)
class Images:
    """What is known of the images apart from their features.

    Attributes:
        paths: full paths.
        parts: train, val, test or all.
        labels: "" for an image without one.
        groups: "" for an image without one.
    """

    paths: Sequence[str]
    parts: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Near:
    """The nearest other images of each image, the nearest first.

    Attributes:
        rows: of the neighbours.
        similarities: cosine similarity to them.
    """

    rows: Int[np.ndarray, "images k"]
    similarities: Float[np.ndarray, "images k"]

    def distances(self) -> Float[np.ndarray, "images k"]:
        """Euclidean distances of features of length one."""
        return np.asarray(np.sqrt(np.maximum(2 - 2 * self.similarities, 0)))


@dataclass(frozen=True)
class Exploration:
    """What was found. Rows are images, in the order of `Images`.

    Attributes:
        points: positions on the map.
        layout: "UMAP" or "PCA".
        near: the 12 nearest others.
        cluster_of: cluster, the largest is 0; -1 for none.
        clustered_by: how, in words.
        cluster_examples: rows to show of each cluster.
        outlier: see `outlier_score`; 1 is usual.
        classes: names of the labels.
        targets: class of each image, -1 without label.
        group_names: names of the groups.
        group_of: group of each image, -1 without one.
        votes: of the labelled neighbours; None without labels.
        to_label: images to label next, the best first; empty where all have a label.
        to_check: labels that the neighbours contradict, the surest first.
    """

    points: Float[np.ndarray, "images 2"]
    layout: str
    near: Near
    cluster_of: Int[np.ndarray, " images"]
    clustered_by: str
    cluster_examples: list[list[int]]
    outlier: Float[np.ndarray, " images"]
    classes: list[str]
    targets: Int[np.ndarray, " images"]
    group_names: list[str]
    group_of: Int[np.ndarray, " images"]
    votes: Votes | None
    to_label: list[Choice]
    to_check: list[Choice]

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images that have a vote and the right one; None without any."""
        if self.votes is None:
            return None
        asked = (self.targets >= 0) & (self.votes.first >= 0)
        right = self.votes.first[asked] == self.targets[asked]
        return float(right.mean()) if asked.any() else None


def explore(
    features: Float[np.ndarray, "images dim"],
    images: Images,
    near: Near,
    voters: Near | None = None,
    layout: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Exploration:
    """Arrange the images of a collection by their features.

    Args:
        features: one row an image.
        images: what else is known of them.
        near: the nearest others of each image, 15 or more where there are as many.
        voters: the nearest others that have a label; `near` where None.
        layout: "umap", "pca", or "auto" for UMAP where it is installed.
        seed: of UMAP, k-means and samples.
        say: called with the name of each step before it begins.

    Raises:
        UserError: UMAP is asked for and is not installed.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.asarray(features / np.maximum(length, 1e-12), np.float32)
    say("principal components")
    components, _ = principal_axes(unit, _COMPONENTS)
    few = Near(near.rows[:, :_LOCAL], near.similarities[:, :_LOCAL])
    say("map")
    points, method = place(unit, components, few.rows, few.distances(), layout, seed)
    say("clusters")
    found, how = cluster(points if method == "UMAP" else None, components, seed)
    classes, targets = _numbered(images.labels)
    group_names, group_of = _numbered(images.groups)
    say("images to label")
    votes, to_label, to_check = None, [], []
    labelled = targets >= 0
    if classes:
        asked = voters or near
        votes = vote(asked.rows, asked.similarities, targets, len(classes), group_of)
        to_check = doubtful(votes, targets, classes)
    if not labelled.all():
        uncertain = unsure(votes, labelled, near.rows, classes) if votes else []
        to_label = label_next(cover(components, labelled, seed=seed), uncertain)
    return Exploration(
        points,
        method,
        Near(near.rows[:, :SHOWN_NEIGHBOURS], near.similarities[:, :SHOWN_NEIGHBOURS]),
        found,
        how,
        examples(found, components),
        outlier_score(few.rows, few.distances()),
        classes,
        targets,
        group_names,
        group_of,
        votes,
        to_label,
        to_check,
    )


def _numbered(names: Sequence[str]) -> tuple[list[str], Int[np.ndarray, " images"]]:
    """Distinct names, sorted, and the number of each entry; -1 for ""."""
    known = sorted({name for name in names if name}, key=_in_order)
    number = {name: position for position, name in enumerate(known)}
    return known, np.array([number.get(name, -1) for name in names], np.int64)


def _in_order(name: str) -> tuple[int, str]:
    """Numbers by value, before words."""
    return (int(name), name) if name.isdecimal() and len(name) < 18 else (10**18, name)
