"""What the features know: a 2-D map, nearest neighbours, per-class accuracy, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from convit_ssl.models.trunks import Network, OtherTrunk


@dataclass(frozen=True)
class Classified:
    """Predicted classes of labelled images.

    Attributes:
        method: how the predictions were made, in words.
        predictions: class index of each image, -1 where it has no label.
        confusion: images of the row's class that were taken for the column's.
        per_class: share of each class that was right; NaN for an absent class.
        accuracy: share of all labelled images that was right.
    """

    method: str
    predictions: Int[np.ndarray, " images"]
    confusion: Int[np.ndarray, "classes classes"]
    per_class: Float[np.ndarray, " classes"]
    accuracy: float


@dataclass(frozen=True)
class FeatureMap:
    """Features of a sample of images, arranged to be looked at.

    Attributes:
        points: position in the map.
        method: "PCA" or "UMAP".
        explained: share of the variance along each axis of the map; None for UMAP.
        targets: class index of each image, -1 without label.
        classes: names of the classes.
        neighbours: the nearest other images by cosine similarity, nearest first.
        similarities: their cosine similarity.
        thumbnails: small pictures.
        names: full paths, or file names.
        classified: None if there are no labels.
    """

    points: Float[np.ndarray, "images 2"]
    method: str
    explained: tuple[float, float] | None
    targets: Int[np.ndarray, " images"]
    classes: tuple[str, ...]
    neighbours: Int[np.ndarray, "images neighbours"]
    similarities: Float[np.ndarray, "images neighbours"]
    thumbnails: UInt8[np.ndarray, "images side side 3"]
    names: tuple[str, ...]
    classified: Classified | None


@torch.no_grad()
def pooled_features(
    model: Network, pixels: Float[Tensor, "images chans height width"], batch_size: int = 32
) -> tuple[Float[Tensor, "images dim"], Float[Tensor, "images outputs"] | None]:
    """The pooled features, and the logits of a model with a classifier."""
    features, logits = [], []
    device = next(model.parameters()).device
    for batch in torch.split(pixels, batch_size):
        if isinstance(model, OtherTrunk):
            features.append(model(batch.to(device)).float().cpu())
            continue
        tokens = model.forward_features(batch.to(device))
        features.append(model.forward_head(tokens, pre_logits=True).float().cpu())
        if model.num_classes:
            logits.append(model.forward_head(tokens).float().cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


def nearest_neighbours(
    features: Float[Tensor, "images dim"], k: int
) -> tuple[Float[Tensor, "images neighbours"], Int[Tensor, "images neighbours"]]:
    """Cosine similarity and index of each image's nearest other images."""
    unit = torch.nn.functional.normalize(features, dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-torch.inf)
    values, indices = similarity.topk(min(k, len(features) - 1), dim=1)
    return values, indices


def vote(
    similarities: Float[Tensor, "images neighbours"],
    labels: Int[Tensor, "images neighbours"],
    classes: int,
    temperature: float = 0.07,
) -> Int[Tensor, " images"]:
    """Class with the largest sum of exp(similarity / temperature), as DINO's kNN votes.

    Neighbours without a label (-1) do not vote.
    """
    nearest = similarities.amax(dim=1, keepdim=True)  # only ratios count, and exp may overflow
    weights = ((similarities - nearest) / temperature).exp() * (labels >= 0)
    votes = torch.zeros(len(labels), classes)
    return votes.scatter_add_(1, labels.clamp_min(0), weights).argmax(dim=1)


def principal_components(
    features: Float[Tensor, "images dim"],
) -> tuple[Float[np.ndarray, "images 2"], tuple[float, float]]:
    """The first two principal components and their share of the variance.

    Signs are fixed (largest loading positive), so the same features give the same picture.
    """
    centred = (features - features.mean(dim=0)).double()
    left, singular, right = torch.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(features), 2))
    shares = [0.0, 0.0]
    total = float(singular.square().sum())
    for axis in range(min(2, len(singular))):
        sign = 1.0 if right[axis].abs().argmax() == right[axis].argmax() else -1.0
        points[:, axis] = (sign * left[:, axis] * singular[axis]).numpy()
        shares[axis] = float(singular[axis] ** 2) / total if total > 0 else 0.0
    return points, (shares[0], shares[1])


def describe_features(
    features: Float[Tensor, "images dim"],
    targets: Sequence[int],
    classes: Sequence[str],
    thumbnails: UInt8[np.ndarray, "images side side 3"],
    names: Sequence[str],
    logits: Float[Tensor, "images outputs"] | None = None,
    k: int = 10,
    layout: str = "auto",
) -> FeatureMap:
    """Arrange the features of a sample of images.

    Args:
        features: pooled features.
        targets: class index of each image, -1 without label.
        classes: names of the classes.
        thumbnails: one per image.
        names: one per image.
        logits: of a classifier over the same classes; its predictions are shown instead of
            the neighbours' vote.
        k: neighbours that vote.
        layout: "pca", "umap", or "auto" for UMAP where it is installed.
    """
    similarities, neighbours = nearest_neighbours(features, k)
    labels = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
    classified = None
    if classes and bool((labels >= 0).any()) and neighbours.shape[1]:
        if logits is not None and logits.shape[1] == len(classes):
            predictions, method = logits.argmax(dim=1), "the model's classifier"
        else:
            predictions = vote(similarities, labels[neighbours], len(classes))
            method = (
                f"weighted {neighbours.shape[1]}-NN (cosine, sample), each image left out of its "
                "own neighbours"
            )
        classified = _classified(predictions, labels, len(classes), method)
    points, explained, name = _layout(features, layout)
    return FeatureMap(
        points,
        name,
        explained,
        labels.numpy(),
        tuple(classes),
        neighbours.numpy(),
        similarities.numpy(),
        thumbnails,
        tuple(names),
        classified,
    )


def _classified(predictions: Tensor, labels: Tensor, classes: int, method: str) -> Classified:
    known = labels >= 0
    index = labels[known] * classes + predictions[known]
    confusion = torch.bincount(index, minlength=classes * classes).view(classes, classes).numpy()
    count = confusion.sum(axis=1)
    right = np.diagonal(confusion)
    per_class = np.where(count > 0, right / np.maximum(count, 1), np.nan)
    shown = torch.where(known, predictions, torch.full_like(predictions, -1)).numpy()
    return Classified(method, shown, confusion, per_class, float(right.sum() / count.sum()))


def _layout(features: Tensor, layout: str) -> tuple[np.ndarray, tuple[float, float] | None, str]:
    if layout in ("auto", "umap") and len(features) > 15:
        try:
            from umap import UMAP
        except ImportError:
            if layout == "umap":
                from convit_ssl.errors import UserError

                raise UserError("umap is not installed: pip install umap-learn") from None
        else:
            placed = UMAP(random_state=0, n_jobs=1, metric="cosine").fit_transform(features.numpy())
            return np.asarray(placed, dtype=np.float64), None, "UMAP"
    points, explained = principal_components(features)
    return points, explained, "PCA"
