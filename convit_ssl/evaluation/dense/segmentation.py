"""Segmentation with frozen patch features: nearest patches, or a linear classifier of patches.

Each patch of the images with masks is an example; its target is the share of each class under it.
A test image's map of shares is enlarged to the size of its mask, where it is compared pixel by
pixel. Source of the kNN: arXiv:2306.01667; of the linear probe: DINOv2, arXiv:2304.07193, 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.probes.logistic_probe import fit_chosen
from convit_ssl.evaluation.probes.splits import hold_out

NEIGHBOURS = 30
TEMPERATURE = 0.07  # of the votes by cosine similarity
MOST_PATCHES = 20_000  # of all images that are learned from
LEAST_KNOWN = 0.5  # share of a patch that must belong to some class
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
HOLD_OUT = 0.2
_CHUNK = 4096


@dataclass(frozen=True)
class Patches:
    """Patches to learn from.

    Attributes:
        features: (N, D).
        shares: (N, C) of each class in the patch.
        images: (N,) the image of each.
    """

    features: Float[Tensor, "patches dim"]
    shares: Float[Tensor, "patches classes"]
    images: np.ndarray[Any, Any]


class PatchClassifier(Protocol):
    """Patch features to the share of each class."""

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches classes"]:
        """Shares that sum to 1."""


def class_shares(
    mask: Int[Tensor, "height width"], grid: tuple[int, int], classes: int
) -> tuple[Float[Tensor, "patches classes"], Float[Tensor, " patches"]]:
    """Of each patch of a grid the share of each class, and how much of it has one.

    Args:
        mask: classes from 0, -1 if there is none.
        grid: rows and columns of patches.
        classes: how many.
    """
    known = mask >= 0
    maps = F.one_hot(mask.clamp_min(0), classes).permute(2, 0, 1).float() * known
    pooled = F.adaptive_avg_pool2d(maps, grid).flatten(1).T
    total = pooled.sum(dim=1)
    return pooled / total.clamp_min(1e-9).unsqueeze(1), total


def gather_patches(
    maps: Sequence[Float[Tensor, "rows columns dim"]],
    masks: Sequence[Int[Tensor, "height width"]],
    classes: int,
    seed: int = 0,
) -> Patches:
    """Patches of all images, or of each image as many as there is room for.

    Raises:
        UserError: no patch belongs to a class.
    """
    draw = np.random.default_rng(seed)
    room = max(1, MOST_PATCHES // max(1, len(maps)))
    features, shares, images = [], [], []
    for number, (made, mask) in enumerate(zip(maps, masks, strict=True)):
        found, known = class_shares(mask, (made.shape[0], made.shape[1]), classes)
        rows = np.flatnonzero((known >= LEAST_KNOWN).numpy())
        if len(rows) > room:
            rows = np.sort(draw.choice(rows, room, replace=False))
        features.append(made.flatten(0, 1)[rows].float())
        shares.append(found[rows])
        images.append(np.full(len(rows), number))
    if sum(map(len, features)) == 0:
        raise UserError("no patch of these images belongs to a class; are the masks empty?")
    return Patches(torch.cat(features), torch.cat(shares), np.concatenate(images))


class NearestPatches:
    """Votes of the most similar patches, weighted by their similarity.

    Args:
        patches: to vote.
        device: where similarities are computed.
    """

    name = "kNN"

    def __init__(self, patches: Patches, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.centre = patches.features.mean(dim=0).to(device)
        self.keys = self._unit(patches.features)
        self.shares = patches.shares.to(device)

    def _unit(self, features: Tensor) -> Tensor:
        return F.normalize(features.to(self.device).float() - self.centre, dim=1)

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches classes"]:
        """Shares by vote."""
        count = min(NEIGHBOURS, len(self.keys))
        found = []
        for part in features.split(_CHUNK):
            near, places = (self._unit(part) @ self.keys.T).topk(count, dim=1)
            votes = (near / TEMPERATURE).softmax(dim=1)
            found.append(torch.einsum("qk,qkc->qc", votes, self.shares[places]))
        return torch.cat(found).cpu()


class LinearPatches:
    """Logistic regression on standardised patch features; the penalty is chosen on whole images.

    Args:
        patches: to learn from.
        device: where it is computed.
        seed: of the images that are held out to choose by.
    """

    name = "linear"

    def __init__(self, patches: Patches, device: torch.device | str = "cpu", seed: int = 0) -> None:
        targets = patches.shares.argmax(dim=1).numpy()
        features = FeatureSet(patches.features, targets)
        fit, held = hold_out(targets, HOLD_OUT, seed, patches.images)
        chosen = fit_chosen(
            features, ("features",), np.arange(len(targets)), fit, held, PENALTIES, device=device
        )
        self.model, self.device = chosen.model, device
        self.standardiser = chosen.data.standardisers["features"]
        self.missing = patches.shares.shape[1] - chosen.model.bias.shape[0]

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches classes"]:
        """Shares by softmax."""
        scaled = (features.float() - self.standardiser.mean) / self.standardiser.scale
        logits = scaled.to(self.model.weight) @ self.model.weight + self.model.bias
        # Classes that no patch has most of come last only where their numbers do.
        return F.pad(logits.softmax(dim=1), (0, self.missing)).float().cpu()


def predict_mask(
    classifier: PatchClassifier,
    made: Float[Tensor, "rows columns dim"],
    size: tuple[int, int],
) -> Int[Tensor, "height width"]:
    """The most likely class of each pixel.

    Args:
        classifier: of patches.
        made: an image's map of features.
        size: height and width of the mask.
    """
    rows, columns, _ = made.shape
    shares = classifier(made.flatten(0, 1)).T.unflatten(1, (rows, columns))
    enlarged = F.interpolate(shares[None], size=size, mode="bilinear", align_corners=False)
    return enlarged[0].argmax(dim=0)
