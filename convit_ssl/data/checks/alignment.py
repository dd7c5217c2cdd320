"""How well two images agree, pixel by pixel, once one is laid over the other.

Copies that were cropped, resized or recompressed agree almost perfectly. Images that are alike by
nature (cells of one wafer, parts on a line, shots of one scene) match in most keypoints, but not
in shading and detail.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 160  # pixels that both are resized to
_MARGIN = 16  # pixels on each side that a crop may lack
_CELLS = 16  # cells a side: finer detail is lost when a copy is recompressed or made smaller
_STEPS, _PRECISION, _BLUR = 30, 1e-4, 5

Floats = np.ndarray[Any, np.dtype[np.float32]]


def square(image: Image.Image) -> Floats:
    """(SIDE, SIDE) grey values of an image, 0..255."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(grey, np.float32)


def agreement(one: Floats, other: Floats, transform: Floats | None = None) -> float:
    """Correlation of two images after alignment, at most 1.

    Args:
        one: of `square`.
        other: of `square`.
        transform: (2, 3) affine from places of `one` to places of `other`, refined here
            (ECC: Evangelidis and Psarakis 2008). None: they lie over each other already.
    """
    import cv2

    tools: Any = cv2
    start = np.eye(2, 3, dtype=np.float32) if transform is None else transform
    back = tools.invertAffineTransform(start.astype(np.float32)).astype(np.float32)
    criteria = (tools.TERM_CRITERIA_COUNT | tools.TERM_CRITERIA_EPS, _STEPS, _PRECISION)
    with contextlib.suppress(cv2.error):  # where it does not converge, the start has to do
        _, back = tools.findTransformECC(
            other, one, back, tools.MOTION_AFFINE, criteria, None, _BLUR
        )
    laid = tools.warpAffine(
        one, back, (SIDE, SIDE), flags=tools.INTER_LINEAR | tools.WARP_INVERSE_MAP,
        borderMode=tools.BORDER_REPLICATE,
    )  # fmt: skip
    return _correlation(_cells(laid), _cells(other))


def _correlation(one: Floats, other: Floats) -> float:
    """Of the values of two arrays of one shape; 0 where either is flat."""
    first, second = (values.ravel() - values.mean() for values in (one, other))
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-6))


def _cells(picture: Floats) -> Floats:
    """Means over a grid, without the margin."""
    inner = picture[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    size = len(inner) // _CELLS
    means: Floats = inner.reshape(_CELLS, size, _CELLS, size).mean(axis=(1, 3))
    return means
