"""The device pipeline: loader workers decode, the accelerator crops and colours in batches.

A worker lays the decoded image, made smaller where it is larger than need be, into a
square canvas, and draws the crops as ``fast`` does: the random numbers, and with them the
crops, do not depend on the device. :class:`DeviceAugmentation` then carries them out.

Cropping, flipping and resizing are one product ``rows @ image @ columns`` with the
antialiasing filter's weights as matrices, so they equal Pillow's resize up to rounding;
the blur is Pillow's, as products with banded matrices.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convit_ssl.data.augment import batched_colour
from convit_ssl.data.augment.box_blur import blur_batch
from convit_ssl.data.augment.fast import resize
from convit_ssl.data.augment.parameters import CropParameters, draw_crops
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig
from convit_ssl.data.reading.pixels import Pixels
from convit_ssl.errors import UserError

LARGEST_CANVAS = 512

# Columns of Canvas.drawn.
TOP, LEFT, HEIGHT, WIDTH, FLIP, VERTICAL_FLIP, TURNS = range(7)
JITTER = 7  # four pairs of operation (-1: none) and factor
GREY, SIGMA, SOLARIZE = 15, 16, 17


class Canvas(NamedTuple):
    """What a worker hands over, for one image or stacked to a batch.

    Attributes:
        pixels: uint8 (3, S, S), the image at the top left.
        drawn: float32 (crops, 18), what was drawn for each crop.
    """

    pixels: Tensor
    drawn: Tensor


def _row(drawn: CropParameters) -> list[float]:
    box = [drawn.top, drawn.left, drawn.height, drawn.width]
    turned = [drawn.flip, drawn.vertical_flip, drawn.quarter_turns]
    pairs = [*drawn.jitter, *[(-1, 0.0)] * (4 - len(drawn.jitter))]
    colour = [value for pair in pairs for value in pair]
    return [*box, *turned, *colour, drawn.grey, drawn.sigma, drawn.solarize]


class DeviceCanvas:
    """The worker's half: (H, W, 3) uint8 to a :class:`Canvas`.

    Args:
        config: what to draw.
        canvas: side in pixels; None: what the crops need, at most 512. Images that are
            larger are made smaller to fit, keeping their aspect ratio.
    """

    seeded = True
    reads_arrays = True

    def __init__(self, config: AugmentConfig, canvas: int | None = None) -> None:
        if config.timm:
            raise UserError(
                "augment=device supports neither RandAugment nor random erasing; use "
                "augment=fast, or method.rand_augment=null method.erasing=0"
            )
        cv2.setNumThreads(0)
        self.config = config
        self.canvas = canvas or min(LARGEST_CANVAS, config.min_side)
        self.min_side = self.canvas

    def __call__(self, image: Any, seed: int | None = None) -> Canvas:
        """Lay out an array (or Pillow image) and draw its crops."""
        pixels: Pixels = image if isinstance(image, np.ndarray) else np.array(image)
        if seed is None:
            seed = random.getrandbits(63)
        longest = max(pixels.shape[:2])
        if longest > self.canvas:
            height, width = (
                max(1, round(side * self.canvas / longest)) for side in pixels.shape[:2]
            )
            pixels = resize(pixels, (height, width), "bilinear")
        height, width = pixels.shape[:2]
        canvas = np.zeros((self.canvas, self.canvas, 3), np.uint8)
        canvas[:height, :width] = pixels
        rows = [_row(drawn) for drawn in draw_crops(self.config, height, width, seed)]
        return Canvas(torch.from_numpy(canvas).permute(2, 0, 1), torch.tensor(rows))


class DeviceAugmentation(nn.Module):
    """The device's half: a batch of canvases to normalised crops.

    Args:
        config: the one that the canvases were drawn with.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", config.mean), ("std", config.std)):
            statistics = torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(name, statistics, persistent=False)
        self._groups = [crop for crop in config.crops for _ in range(crop.count)]

    @torch.no_grad()
    def forward(
        self,
        pixels: UInt8[Tensor, "batch 3 side side"],
        drawn: Float[Tensor, "batch crops 18"],
    ) -> list[Float[Tensor, "batch 3 height width"]]:
        """Crops, float32 and normalised, in the order of ``config.crops``.

        Args:
            pixels: on the device.
            drawn: on the CPU (nothing then waits for the device) or on the device.
        """
        drawn = drawn.cpu()
        images = pixels.to(torch.float32)
        return [
            (self._crop(images, crop, drawn[:, number]) / 255.0 - self.mean) / self.std
            for number, crop in enumerate(self._groups)
        ]

    def _crop(self, images: Tensor, crop: CropConfig, drawn: Tensor) -> Tensor:
        """One crop of each image, 0..255, (B, 3, h, w)."""
        device, side = images.device, images.shape[-1]
        height, width = crop.height_width
        vertical = drawn[:, [TOP, HEIGHT, VERTICAL_FLIP]].to(device)
        horizontal = drawn[:, [LEFT, WIDTH, FLIP]].to(device)
        rows = resize_matrix(vertical, side, height, crop.interpolation)
        columns = resize_matrix(horizontal, side, width, crop.interpolation)
        out = rows[:, None] @ images @ columns[:, None].transpose(-1, -2)
        out = out.clamp_(0.0, 255.0).round_()
        for turns in (1, 2, 3):
            chosen = _chosen(drawn[:, TURNS] == turns, device)
            if chosen is not None:
                out[chosen] = out[chosen].rot90(turns, (-2, -1))
        out = batched_colour.jitter(out, drawn[:, JITTER : JITTER + 8])
        chosen = _chosen(drawn[:, GREY] > 0, device)
        if chosen is not None:
            out[chosen] = batched_colour.grey(out[chosen]).round_().expand(-1, 3, -1, -1)
        chosen = _chosen(drawn[:, SIGMA] > 0, device)
        if chosen is not None:
            out[chosen] = blur_batch(out[chosen], drawn[:, SIGMA][drawn[:, SIGMA] > 0])
        chosen = _chosen(drawn[:, SOLARIZE] > 0, device)
        if chosen is not None:
            values = out[chosen]
            out[chosen] = torch.where(values >= crop.solarize_threshold, 255.0 - values, values)
        return out


def _chosen(mask: Tensor, device: torch.device) -> Tensor | None:
    """Positions where a CPU mask holds, on the device; None for none."""
    positions = mask.nonzero()[:, 0]
    return positions.to(device, non_blocking=True) if len(positions) else None


def _filter(x: Tensor, interpolation: str) -> Tensor:
    """Pillow's resampling filters: the triangle, or Keys' cubic with a = -0.5."""
    x = x.abs()
    if interpolation == "bilinear":
        return (1.0 - x).clamp_min(0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))


def resize_matrix(
    spans: Float[Tensor, "batch 3"], side: int, size: int, interpolation: str
) -> Float[Tensor, "batch size side"]:
    """Weights that cut (start, length, flip) out of ``side`` pixels and resize it to ``size``.

    The filter widens with the reduction (antialiasing) and stops at the ends of the cut,
    as Pillow's ``crop`` and ``resize`` do one after the other.
    """
    start, length, flip = spans[:, 0:1, None], spans[:, 1:2, None], spans[:, 2]
    source = torch.arange(side, device=spans.device, dtype=torch.float32)[None, None]
    target = torch.arange(size, device=spans.device, dtype=torch.float32)[None, :, None]
    scale = length / size
    centre = start + (target + 0.5) * scale
    weights = _filter((source + 0.5 - centre) / scale.clamp_min(1.0), interpolation)
    weights = weights * ((source >= start) & (source < start + length))
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.where(flip[:, None, None] > 0, weights.flip(1), weights)
