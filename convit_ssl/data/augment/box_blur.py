"""Pillow's Gaussian blur, which the published pipelines use, on arrays and on batches.

``ImageFilter.GaussianBlur(sigma)`` is three box blurs along each axis whose width may be a
fraction, each rounded to 8 bits. Its standard deviation is the one asked for even where a sampled
Gaussian has hardly any weight beside its centre: at sigma 0.3 it is 0.294 of a pixel, that of a
sampled Gaussian 0.088.

Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box
filtering"; Pillow, src/libImaging/BoxBlur.c.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.data.reading.pixels import Pixels

PASSES = 3
# Pillow cuts its weights off at 24 bits, so that most ties are rounded down.
_TIES = 1e-3
_ONE = np.ones(1, np.float32)


def box_weights(sigma: float) -> tuple[int, float, float]:
    """The box of each pass: (pixels on each side that count in full, their weight, weight beyond).

    A pixel of the box has the second value, the one after its end on each side the third; all
    together are 1.

    Args:
        sigma: standard deviation of the three passes together, in pixels, above 0.
    """
    variance = sigma * sigma / PASSES
    side = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    share = (2 * side + 1) * (side * (side + 1) - 3.0 * variance)
    share /= 6.0 * (variance - (side + 1) ** 2)
    inside = 1.0 / (2.0 * (side + share) + 1.0)
    return side, inside, (1.0 - (2 * side + 1) * inside) / 2.0


def blur_array(pixels: Pixels, sigma: float) -> Pixels:
    """Blur an (H, W, 3) or (H, W) image; the border is extended.

    Equals Pillow's but for a level or two where a pass ends midway between two levels.
    """
    side, inside, beyond = box_weights(sigma)
    if side == 0 and 2.0 * 255.0 * beyond < 0.5:
        return pixels  # every pass rounds to what it was given
    kernel: npt.NDArray[np.float32] = np.full(2 * side + 3, inside, np.float32)
    kernel[[0, -1]] = beyond
    for row, column in ((kernel, _ONE), (_ONE, kernel)):
        for _ in range(PASSES):
            pixels = np.asarray(
                cv2.sepFilter2D(
                    pixels, -1, row, column, delta=-_TIES, borderType=cv2.BORDER_REPLICATE
                )
            )
    return pixels


def blur_batch(
    images: Float[Tensor, "batch channels height width"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Blur whole numbers in 0..255, each image by its own sigma (on the CPU); as `blur_array`."""
    boxes = [box_weights(value) for value in sigma.tolist()]
    reach = max(side for side, _, _ in boxes) + 1
    drawn = torch.tensor(boxes, dtype=torch.float32).to(images.device, non_blocking=True)
    height, width = images.shape[-2:]
    rows = _box_matrix(drawn, height, reach)[:, None]
    columns = rows if height == width else _box_matrix(drawn, width, reach)[:, None]
    for _ in range(PASSES):
        images = _rounded(images @ columns.transpose(-1, -2))
    for _ in range(PASSES):
        images = _rounded(rows @ images)
    return images


def _rounded(images: Tensor) -> Tensor:
    return images.add_(0.5 - _TIES).floor_()


def _box_matrix(
    boxes: Float[Tensor, "batch 3"], size: int, reach: int
) -> Float[Tensor, "batch size size"]:
    """Row i holds the weights of the pixels that make pixel i; none is further than ``reach``."""
    side, inside, beyond = (column.view(-1, 1, 1) for column in boxes.unbind(1))
    pixel = torch.arange(size, device=boxes.device, dtype=torch.float32)
    around = torch.arange(-reach, size + reach, device=boxes.device, dtype=torch.float32)
    distance = (around[None, :] - pixel[:, None]).abs()
    nothing = torch.zeros((), device=boxes.device)
    weights = torch.where(distance <= side + 1, beyond, nothing)
    weights = torch.where(distance <= side, inside, weights)
    # What lies beyond an end has the value of the end.
    within = weights[..., reach : reach + size].clone()
    within[..., 0] += weights[..., :reach].sum(-1)
    within[..., -1] += weights[..., reach + size :].sum(-1)
    return within
