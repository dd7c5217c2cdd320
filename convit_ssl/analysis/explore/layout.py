"""Where each image lies on the map."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from convit_ssl.errors import UserError

LAYOUTS = ("auto", "umap", "pca")
UMAP_NEIGHBOURS = 15
_FEWEST = 16  # images that UMAP can arrange
_GAP = 0.3  # UMAP's min_dist: clusters spread out enough to be looked into
_LARGE = 10_000  # images from which on UMAP starts from PCA: the spectral start takes minutes


def principal_axes(
    features: Float[np.ndarray, "images dim"], axes: int
) -> tuple[Float[np.ndarray, "images axes"], Float[np.ndarray, " axes"]]:
    """Scores on the first principal axes, and each axis' share of the variance.

    Signs are fixed (largest loading positive), so the same features give the same picture.

    Args:
        features: in any float type.
        axes: at most; fewer where the features have fewer dimensions.
    """
    centred = np.asarray(features, np.float32)
    centred = centred - centred.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    kept = vectors[:, : min(axes, vectors.shape[1])]
    largest = np.abs(kept).argmax(axis=0)
    kept = kept * np.where(kept[largest, np.arange(kept.shape[1])] < 0, -1, 1)
    total = float(values.sum())
    shares = values[: kept.shape[1]] / total if total > 0 else np.zeros(kept.shape[1])
    return np.asarray(centred @ kept, np.float32), shares


def check_layout(layout: str) -> None:
    """Say what is missing before features are extracted.

    Raises:
        UserError: UMAP is asked for and is not installed.
    """
    if layout == "umap" and find_spec("umap") is None:
        raise UserError("umap is not installed: pip install 'convit_ssl[explore]'")


def place(
    unit: Float[np.ndarray, "images dim"],
    components: Float[np.ndarray, "images axes"],
    neighbours: Int[np.ndarray, "images k"],
    distances: Float[np.ndarray, "images k"],
    layout: str = "auto",
    seed: int = 0,
) -> tuple[Float[np.ndarray, "images 2"], str]:
    """Positions on the map and the method's name, "UMAP" or "PCA".

    Args:
        unit: features of length one.
        components: their principal components, two or more.
        neighbours: rows of the nearest others, nearest first.
        distances: to them, in features of length one.
        layout: one of `LAYOUTS`; "auto" is UMAP where it is installed.
        seed: of UMAP.

    Raises:
        UserError: UMAP is asked for and is not installed.
    """
    check_layout(layout)
    flat = np.zeros((len(unit), 2), np.float32)
    flat[:, : components.shape[1]] = components[:, :2]
    if layout == "pca" or len(unit) < _FEWEST:
        return flat, "PCA"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError:
        return flat, "PCA"
    k = min(UMAP_NEIGHBOURS, neighbours.shape[1] + 1)
    own = np.arange(len(unit))[:, None]
    known: tuple[Any, ...] = (
        np.hstack([own, neighbours[:, : k - 1]]).astype(np.int32),
        np.hstack([np.zeros_like(own), distances[:, : k - 1]]).astype(np.float32),
    )
    start: Any = "spectral" if len(unit) < _LARGE else flat / max(float(flat.std()), 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread under a seed, and of no new images
        mapper = umap.UMAP(
            n_neighbors=k, min_dist=_GAP, random_state=seed, precomputed_knn=known, init=start,
            n_jobs=1,
        )  # fmt: skip
        placed = mapper.fit_transform(unit)
    # An image without a neighbour in common with others has no place: it goes to the middle.
    return np.nan_to_num(np.asarray(placed, np.float32)), "UMAP"
