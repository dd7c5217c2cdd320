"""Figures of segmentation: mIoU, boundary IoU, pixel accuracy, and paired differences of mIoU.

An image's counts are kept, so that images (or groups of them) can be drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from convit_ssl.evaluation.paired import Difference

BOUNDARY = 0.02  # width of the boundary, of the image's diagonal
RESAMPLES = 2000
Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SegmentationCounts:
    """Counts of each test image.

    Attributes:
        confusion: (images, classes, classes): truth by prediction, in pixels.
        boundary: (images, 2, classes): intersection and union of the boundaries.
    """

    confusion: Values
    boundary: Values

    @classmethod
    def of(cls, counts: Sequence[tuple[Values, Values]]) -> SegmentationCounts:
        """From what `count_image` gave for each image."""
        return cls(np.stack([one for one, _ in counts]), np.stack([two for _, two in counts]))

    def class_iou(self) -> Values:
        """(classes,) intersection over union over all images; NaN where a class is in neither."""
        return _iou(self.confusion.sum(axis=0))

    def miou(self) -> float:
        """Mean IoU over classes, 0..1."""
        return float(np.nanmean(self.class_iou()))

    def boundary_iou(self) -> float:
        """Mean boundary IoU over classes (arXiv:2103.16562), 0..1."""
        shared, union = self.boundary.sum(axis=0).astype(float)
        known = union > 0
        return float((shared[known] / union[known]).mean()) if known.any() else math.nan

    def pixel_accuracy(self) -> float:
        """Share of pixels, 0..1."""
        total = self.confusion.sum(axis=0)
        return float(np.trace(total) / max(1, total.sum()))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        iou = self.class_iou()
        return {
            "miou": self.miou(),
            "boundary_iou": self.boundary_iou(),
            "pixel_accuracy": self.pixel_accuracy(),
            "class_iou": [None if math.isnan(value) else float(value) for value in iou],
        }


def count_image(truth: Values, predicted: Values, classes: int) -> tuple[Values, Values]:
    """Confusion (classes, classes) and boundary counts (2, classes) of one image.

    Args:
        truth: (H, W) classes, -1 if there is none; such pixels count nowhere.
        predicted: (H, W) classes.
        classes: how many.
    """
    known = truth >= 0
    pairs = truth[known] * classes + predicted[known]
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    width = max(1, round(BOUNDARY * math.hypot(*truth.shape)))
    boundary = np.zeros((2, classes), np.int64)
    for number in range(classes):
        first = _rim(truth == number, width) & known
        second = _rim(predicted == number, width) & known
        boundary[:, number] = (first & second).sum(), (first | second).sum()
    return confusion, boundary


def _rim(mask: Values, width: int) -> Values:
    """Pixels of a mask that lie no further than `width` from what is outside it."""
    if not mask.any():
        return mask
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rim: Values = mask & (inner == 0)
    return rim


def _iou(confusion: Values) -> Values:
    """(..., classes) of (..., classes, classes)."""
    shared = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - shared
    found: Values = np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0)
    return found


def compare_miou(
    first: SegmentationCounts,
    second: SegmentationCounts,
    groups: Values | None = None,
    seed: int = 0,
) -> Difference:
    """The paired difference of mIoU, with an interval by drawing images or groups anew.

    Args:
        first: of the network asked about.
        second: of a reference, on the same images.
        groups: (images,) numbers of groups, which are drawn whole.
        seed: of the draws.
    """
    images = len(first.confusion)
    units = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    value = first.miou() - second.miou()
    if count < 2:
        return Difference(value, -1.0, 1.0, 1.0, count)
    sums = []
    for one in (first, second):
        total = np.zeros((count, *one.confusion.shape[1:]))
        np.add.at(total, units, one.confusion)
        sums.append(total.reshape(count, -1))
    draw = np.random.default_rng(seed)
    times = draw.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    shape = (RESAMPLES, *first.confusion.shape[1:])
    drawn = [np.nanmean(_iou((times @ total).reshape(shape)), axis=1) for total in sums]
    differences = drawn[0] - drawn[1]
    low, high = np.quantile(differences, [0.025, 0.975])
    below = (float((differences <= 0).sum()) + 1) / (RESAMPLES + 1)
    above = (float((differences >= 0).sum()) + 1) / (RESAMPLES + 1)
    return Difference(value, float(low), float(high), min(1.0, 2 * min(below, above)), count)
