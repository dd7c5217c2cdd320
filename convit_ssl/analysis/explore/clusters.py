"""Clusters of images: HDBSCAN, or k-means where density shows none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

_SAMPLE = 20_000  # images that HDBSCAN sees: its time grows with their square
_SILHOUETTE = 2_000  # images that choose the number of k-means clusters
_TRIED = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
_MOST_LEFT_OUT = 0.5


def cluster(
    places: Float[np.ndarray, "images 2"] | None,
    components: Float[np.ndarray, "images axes"],
    seed: int = 0,
) -> tuple[Int[np.ndarray, " images"], str]:
    """A cluster for each image, numbered from the largest, -1 for none; and how they were found.

    HDBSCAN (Campello et al. 2013) sees the UMAP map, where there is one: in hundreds of
    dimensions density says little. Where it finds fewer than two clusters or leaves out more than
    half of the images, k-means takes its place, with the number of clusters that has the largest
    silhouette.

    Args:
        places: positions on a UMAP map; None without one.
        components: principal components of the features.
        seed: of the sample and of k-means.
    """
    images = len(components)
    if images < 8:
        return np.zeros(images, np.int64), "too few images to cluster"
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KNeighborsClassifier

    space = components if places is None else places
    rows = np.sort(np.random.default_rng(seed).permutation(images)[:_SAMPLE])
    smallest = max(5, round(len(rows) ** 0.5 / 2))
    found = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(space[rows])
    enough = len(np.unique(found[found >= 0])) >= 2 and (found < 0).mean() <= _MOST_LEFT_OUT
    if not enough:
        return _by_means(components, seed)
    how = f"HDBSCAN on {'the principal components' if places is None else 'the map'}"
    if len(rows) < images:
        how += f" ({len(rows):,} images; each of the others joins its nearest one)"
        nearest = KNeighborsClassifier(n_neighbors=1).fit(space[rows], found)
        found = np.concatenate([nearest.predict(part) for part in _parts(space)])
    return _by_size(found), how


def _parts(space: np.ndarray) -> list[np.ndarray]:
    return [space[first : first + 8192] for first in range(0, len(space), 8192)]


def _by_means(
    components: Float[np.ndarray, "images axes"], seed: int
) -> tuple[Int[np.ndarray, " images"], str]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rows = np.random.default_rng(seed).permutation(len(components))[:_SILHOUETTE]
    distinct = len(np.unique(components[rows], axis=0))
    if distinct < 3:
        return np.zeros(len(components), np.int64), "all images are identical: one cluster"
    scores = {}
    for k in _TRIED:
        if k < min(len(rows) / 4, distinct):
            labels = KMeans(k, n_init=1, random_state=seed).fit_predict(components[rows])
            if len(np.unique(labels)) > 1:
                scores[k] = float(silhouette_score(components[rows], labels))
    best = max(scores, key=lambda k: scores[k]) if scores else 2
    chosen = KMeans(best, n_init=4, random_state=seed).fit(components[rows])
    found = np.concatenate([chosen.predict(part) for part in _parts(components)])
    return _by_size(found), "k-means (HDBSCAN found none)"


def _by_size(labels: Int[np.ndarray, " images"]) -> Int[np.ndarray, " images"]:
    """The same clusters, the largest as 0; -1 stays."""
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = names[np.argsort(-counts, kind="stable")]
    number = {int(name): position for position, name in enumerate(order)}
    return np.array([number.get(int(label), -1) for label in labels], np.int64)


def examples(
    labels: Int[np.ndarray, " images"],
    components: Float[np.ndarray, "images axes"],
    most: int = 24,
) -> list[list[int]]:
    """Of each cluster the images to show: half from its middle, then some from all over it.

    Args:
        labels: of `cluster`.
        components: principal components of the features.
        most: images of a cluster.
    """
    shown = []
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(int(labels.max(initial=-1)) + 2))
    for first, last in pairwise(bounds):
        rows = order[first:last]
        centre = components[rows].mean(axis=0)
        by_distance = rows[np.argsort(np.square(components[rows] - centre).sum(axis=1))]
        middle = by_distance[: most // 2]
        rest = by_distance[most // 2 :]
        spread = rest[np.linspace(0, len(rest) - 1, min(len(rest), most // 2)).astype(int)]
        shown.append([int(row) for row in [*middle, *spread]])
    return shown
