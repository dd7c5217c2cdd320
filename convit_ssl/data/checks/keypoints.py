"""Whether two images show the same scene, a little cropped or resized, by SIFT keypoints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.data.checks.alignment import SIDE, Floats, square

MOST = 300  # keypoints of an image
LEAST = 40  # an image with fewer has too little detail to tell
LEAST_MATCHES = 24
LEAST_SHARE = 0.3  # of the keypoints of the poorer image
RATIO = 0.85  # of the best match's distance to the second's (Lowe 2004, section 7.1)
SHIFT = 0.1  # of the side, of a keypoint at most
OFF_CENTRE = 0.04  # of the side, of the middle: a window moved on is another view, and no crop
SCALES = (0.86, 1.16)
TURN = 3.0  # degrees
KEPT = 4096  # images whose keypoints are kept

Keypoints = tuple[np.ndarray[Any, np.dtype[np.float32]], Any]


@dataclass(frozen=True)
class Match:
    """How the keypoints of two images agree.

    Attributes:
        share: of the keypoints of the poorer image, 0..1.
        transform: (2, 3) affine from places of the first to places of the second, in pixels.
    """

    share: float
    transform: Floats


class KeypointMatcher:
    """Matches pairs of images, each read once while it is needed.

    Args:
        load: the Pillow image at a position.
    """

    def __init__(self, load: Callable[[int], Image.Image]) -> None:
        import cv2

        self._cv2: Any = cv2
        self._sift = self._cv2.SIFT_create(nfeatures=MOST, contrastThreshold=0.02)
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)
        self.keypoints = functools.lru_cache(KEPT)(lambda position: self._of(load(position)))

    def _of(self, image: Image.Image) -> Keypoints:
        """Places (K, 2) in pixels and descriptors (K, 128)."""
        grey = square(image).astype(np.uint8)
        pixels = self._cv2.normalize(grey, None, 0, 255, self._cv2.NORM_MINMAX)
        found, descriptors = self._sift.detectAndCompute(pixels, None)
        return np.array([point.pt for point in found], np.float32).reshape(-1, 2), descriptors

    def match(self, first: int, second: int) -> Match | None:
        """How the keypoints agree on one small shift and scale; None where too few do."""
        (places, one), (others, other) = self.keypoints(first), self.keypoints(second)
        fewer = min(len(places), len(others))
        if fewer < LEAST:
            return None
        matches = [
            best
            for best, second_best in self._matcher.knnMatch(one, other, k=2)
            if best.distance < RATIO * second_best.distance
        ]
        start = places[[match.queryIdx for match in matches]]
        end = others[[match.trainIdx for match in matches]]
        near = (np.abs(start - end) <= SHIFT * SIDE).all(axis=1)
        if near.sum() < LEAST_MATCHES:
            return None
        self._cv2.setRNGSeed(0)
        transform, inliers = self._cv2.estimateAffinePartial2D(
            start[near], end[near], ransacReprojThreshold=3
        )
        if transform is None or not _is_small(transform):
            return None
        agreeing = int(inliers.sum())
        enough = agreeing >= LEAST_MATCHES and agreeing >= LEAST_SHARE * fewer
        return Match(agreeing / fewer, transform.astype(np.float32)) if enough else None


def _is_small(transform: np.ndarray[Any, Any]) -> bool:
    """Whether a similarity is a crop or a resize, and no other view of the same thing."""
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    turn = abs(float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))))
    middle = np.array([SIDE / 2, SIDE / 2, 1.0])
    moved = float(np.abs(transform @ middle - middle[:2]).max())
    return SCALES[0] <= scale <= SCALES[1] and turn <= TURN and moved <= OFF_CENTRE * SIDE
