"""Scores of features that need no labels. None of them is an accuracy.

What each of them is worth for choosing between networks is measured by ``convit-ssl study
scores``; `PASSED` holds those that ranked networks right on every collection of that study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from convit_ssl.methods import effective_rank
from convit_ssl.models.gpsa import GPSA

# Eigenvalues that the power law is fitted to, counted from 1; fewer where there are fewer.
FIRST_EIGENVALUE, LAST_EIGENVALUE = 5, 50
WITHIN_RIDGE = 1e-4  # added to LiDAR's scatter within images
SMALLEST_SHARE = 1e-7  # added to shares before their logarithm


@dataclass(frozen=True)
class Score:
    """One kind of score.

    Attributes:
        title: for a table.
        meaning: one sentence.
        of_pixels: whether it is defined for pixels.
        of_views: whether it needs several random views of each image.
    """

    title: str
    meaning: str
    of_pixels: bool = True
    of_views: bool = False


SCORES: Mapping[str, Score] = {
    "rankme": Score("RankMe", "how many directions the features use (arXiv:2210.02885)"),
    "lidar": Score(
        "LiDAR",
        "how many directions tell images apart, beside how views of one image differ "
        "(arXiv:2312.04000)",
        of_views=True,
    ),
    "alpha_req": Score(
        "alpha-ReQ",
        "decay of the eigenvalues of the features' covariance, as -|alpha - 1| (NeurIPS 2022)",
    ),
    "two_view": Score(
        "two-view retrieval",
        "share of images whose other view is the nearest of all, 0 to 1",
        of_views=True,
    ),
    "gate_motion": Score(
        "gate motion", "how far the gates have moved from their start, 0 to 1", of_pixels=False
    ),
}

# Scores that `convit-ssl study scores` found to rank networks right on each of its collections:
# "passed" of the newest study in results/, which a test compares.
PASSED: tuple[str, ...] = ("two_view",)


def label_free_score(
    name: str,
    model: nn.Module,
    features: Float[Tensor, "samples dim"],
    views: Float[Tensor, "images views dim"] | None = None,
) -> float | None:
    """One score of a network; None where it has none, as a network without gates.

    Args:
        name: one of `SCORES`.
        model: the network.
        features: its features of images as they are.
        views: of several random views of each of some images, for scores `of_views`.

    Raises:
        ValueError: it needs views.
    """
    if name == "gate_motion":
        return gate_motion(model)
    if not SCORES[name].of_views:
        return effective_rank(features) if name == "rankme" else alpha_req(features)
    if views is None:
        raise ValueError(f"{name} needs views")
    return lidar(views) if name == "lidar" else two_view_retrieval(views[:, 0], views[:, 1])


def label_free_scores(
    features: Float[Tensor, "samples dim"], views: Float[Tensor, "images views dim"]
) -> dict[str, float]:
    """All scores of some features but gate motion, which is a network's.

    Args:
        features: of images as they are.
        views: of several random views of each of some images, two at least.
    """
    return {
        "rankme": effective_rank(features),
        "lidar": lidar(views),
        "alpha_req": alpha_req(features),
        "two_view": two_view_retrieval(views[:, 0], views[:, 1]),
    }


def alpha_req(features: Float[Tensor, "samples dim"]) -> float:
    """How near to 1 the decay of the eigenvalues is: 0 at best, and negative."""
    return -abs(eigenvalue_decay(features) - 1.0)


def eigenvalue_decay(features: Float[Tensor, "samples dim"]) -> float:
    """The exponent alpha of a power law through the eigenvalues of the covariance.

    Eigenvalue number i falls as i ** -alpha. Source: alpha-ReQ (Agrawal et al., NeurIPS 2022).

    Returns:
        alpha; infinity where fewer than three eigenvalues are not zero.
    """
    centred = features.double() - features.double().mean(dim=0)
    values = torch.linalg.svdvals(centred).square()
    values = values[values > 1e-12 * values.max().clamp_min(1e-300)]
    first = min(FIRST_EIGENVALUE, max(1, len(values) // 4)) - 1
    chosen = values[first:LAST_EIGENVALUE]
    if len(chosen) < 3:
        return math.inf
    numbers = torch.arange(first + 1, first + 1 + len(chosen), dtype=torch.float64).log()
    heights = chosen.log()
    numbers, heights = numbers - numbers.mean(), heights - heights.mean()
    return float(-(numbers @ heights) / (numbers @ numbers))


def lidar(views: Float[Tensor, "images views dim"]) -> float:
    """LiDAR: the effective rank of the linear discriminants between images.

    Each image is a class and its views are the members. At most ``min(images - 1, dim)``.
    Source: arXiv:2312.04000, section 4.

    Raises:
        ValueError: fewer than two images or views.
    """
    if min(views.shape[:2]) < 2:
        raise ValueError(f"two images and two views at least, not {tuple(views.shape[:2])}")
    scale = views.double().flatten(0, 1).std(dim=0).mean().clamp_min(1e-12)
    # A feature's unit is arbitrary; the ridge below is not.
    values = views.double() / scale
    means = values.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (values - means[:, None]).flatten(0, 1)
    scatter = within.T @ within / len(within)
    scatter += WITHIN_RIDGE * torch.eye(len(scatter), dtype=scatter.dtype)
    lengths, axes = torch.linalg.eigh(scatter)
    whitened = between @ (axes / lengths.clamp_min(WITHIN_RIDGE).sqrt())
    found = torch.linalg.svdvals(whitened).square()
    total = found.sum()
    if not bool(total > 0):
        return 1.0
    shares = found / total + SMALLEST_SHARE
    return float((-(shares * shares.log()).sum()).exp())


def two_view_retrieval(
    first: Float[Tensor, "images dim"], second: Float[Tensor, "images dim"]
) -> float:
    """Share of images whose second view is the nearest second view of all, by cosine, 0 to 1."""
    return float(two_view_hits(first, second).double().mean())


def two_view_hits(
    first: Float[Tensor, "images dim"], second: Float[Tensor, "images dim"]
) -> Bool[Tensor, " images"]:
    """Whether each image's second view is the nearest second view of all, by cosine."""
    first = first - first.mean(dim=0)
    second = second - second.mean(dim=0)
    alike = F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T
    own = alike.diagonal()
    # Features that are all the same find nothing: a tie is not a hit.
    others = alike.masked_fill(torch.eye(len(alike), dtype=torch.bool), -torch.inf)
    return own > others.max(dim=1).values


def gate_motion(model: nn.Module) -> float | None:
    """Mean distance of the gates from their start, 0 to 1; None if there are none.

    A gate is the share of attention by position in a head, and starts at sigmoid(1) = 0.731.
    """
    gates = [
        layer.gate.detach().float()
        for layer in model.modules()
        if isinstance(layer, GPSA) and layer.use_gating
    ]
    if not gates:
        return None
    start = 1.0 / (1.0 + math.exp(-1.0))
    return float((torch.cat(gates) - start).abs().mean())
