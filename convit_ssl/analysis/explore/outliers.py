"""How far an image is from everything else."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_FLOOR = 0.5  # of the median distance


def local_outlier_factor(
    neighbours: Int[np.ndarray, "images k"], distances: Float[np.ndarray, "images k"]
) -> Float[np.ndarray, " images"]:
    """Breunig et al. (2000), "LOF", from neighbours that are known already.

    1 is as dense as the neighbours' own surroundings; the larger, the odder. Distances below half
    of the median count as that much: among copies density has no limit, and everything near them
    would seem odder than what is far from all.

    Args:
        neighbours: rows of the nearest others, nearest first.
        distances: to them.
    """
    if neighbours.shape[1] == 0:
        return np.ones(len(neighbours))
    far = np.maximum(distances.astype(np.float64), _FLOOR * np.median(distances) + 1e-9)
    reach = np.maximum(far, far[neighbours, -1])
    density = 1 / reach.mean(axis=1)
    factor: Float[np.ndarray, " images"] = density[neighbours].mean(axis=1) / density
    return factor


def outlier_score(
    neighbours: Int[np.ndarray, "images k"], distances: Float[np.ndarray, "images k"]
) -> Float[np.ndarray, " images"]:
    """The geometric mean of the local outlier factor and the relative distance to neighbours.

    1 is usual. The factor alone misses a few odd images that are like each other: they have near
    neighbours. The distance alone (over its median) misses an image beside a dense heap.

    Args:
        neighbours: rows of the nearest others, nearest first.
        distances: to them.
    """
    if neighbours.shape[1] == 0:
        return np.ones(len(neighbours))
    mean = distances.astype(np.float64).mean(axis=1)
    relative = mean / max(float(np.median(mean)), 1e-9)
    return np.asarray(np.sqrt(local_outlier_factor(neighbours, distances) * relative))
