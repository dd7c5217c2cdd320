"""The fast pipeline: uint8 arrays, cut before they are resized, colour and blur by OpenCV.

It draws from the same distribution as ``pil``. Given the same draws, resizing and blur are
within one level of Pillow's, jitter and grey within a few (rounding, and a hue of 8 bits).
Normalisation is left to the device (:class:`Normalize`), so that a quarter of the bytes travel.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convit_ssl.data.augment.box_blur import blur_array
from convit_ssl.data.augment.own import apply_own
from convit_ssl.data.augment.parameters import CONTRAST, HUE, SATURATION, CropParameters, draw_crops
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig
from convit_ssl.data.reading.pixels import Pixels

# ITU-R 601, as Pillow and OpenCV turn colour into grey.
LUMA = (0.299, 0.587, 0.114)

# Pillow cuts the fraction off where OpenCV rounds. Three such steps make an image darker
# by a level on average, which a comparison of distributions sees.
TRUNCATION = -0.499

_LUMA_ROWS = np.tile(np.array(LUMA, np.float32), (3, 1))
_IDENTITY = np.eye(3, dtype=np.float32)


class FastAugmentation:
    """Crops of an (H, W, 3) uint8 array as (3, h, w) uint8 tensors.

    The tensors are views of (h, w, 3) memory (channels last); ``fast_collate`` keeps that.
    """

    seeded = True
    reads_arrays = True

    def __init__(self, config: AugmentConfig) -> None:
        # Loader workers are one process per core already.
        cv2.setNumThreads(0)
        self.config = config
        self.min_side = config.min_side
        self._groups = [crop for crop in config.crops for _ in range(crop.count)]

    def __call__(
        self, image: Any, seed: int | None = None
    ) -> UInt8[Tensor, "3 height width"] | list[UInt8[Tensor, "3 height width"]]:
        """Crops of an array (or Pillow image); without a seed they are drawn anew."""
        pixels = image if isinstance(image, np.ndarray) else np.array(image)
        if seed is None:
            seed = random.getrandbits(63)
        if self.config.grey_images:
            pixels = np.ascontiguousarray(pixels[:, :, 0])
        height, width = pixels.shape[:2]
        drawn = draw_crops(self.config, height, width, seed)
        made = [
            apply_crop(pixels, crop, parameters)
            for crop, parameters in zip(self._groups, drawn, strict=True)
        ]
        if self.config.own:
            own = self.config.own
            made = [apply_own(crop, own, seed + number) for number, crop in enumerate(made)]
        crops = [as_tensor(crop) for crop in made]
        return crops if len(crops) > 1 else crops[0]


def as_tensor(pixels: Pixels) -> UInt8[Tensor, "3 height width"]:
    """(H, W, 3) or (H, W) as (3, H, W), without a copy."""
    tensor = torch.from_numpy(pixels)
    return tensor.expand(3, -1, -1) if tensor.dim() == 2 else tensor.permute(2, 0, 1)


def apply_crop(pixels: Pixels, crop: CropConfig, drawn: CropParameters) -> Pixels:
    """Carry out what was drawn on an (H, W, 3) or (H, W) image."""
    box = pixels[
        drawn.top : drawn.top + drawn.height,
        drawn.left : drawn.left + drawn.width,
    ]
    out = resize(box, crop.height_width, crop.interpolation)
    if drawn.flip or drawn.vertical_flip:
        out = _cv(cv2.flip(out, -1 if drawn.flip and drawn.vertical_flip else int(drawn.flip)))
    if drawn.quarter_turns:
        out = np.ascontiguousarray(np.rot90(out, drawn.quarter_turns))
    for operation, factor in drawn.jitter:
        out = jitter(out, operation, factor)
    if drawn.grey:
        out = _cv(cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    if drawn.sigma > 0.0:
        out = blur_array(out, drawn.sigma)
    if drawn.solarize:
        out = solarize(out, crop.solarize_threshold)
    return out


def _cv(array: Any) -> Pixels:
    pixels: Pixels = array
    return pixels


def resize(box: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Resize with antialiasing, as Pillow does; (H, W, 3) or (H, W)."""
    if box.shape[:2] == size:
        return box.copy()
    tensor = torch.from_numpy(box)[None]
    # The batch dimension first: torch then sees channels last, its fast path for uint8.
    batch = tensor[None] if box.ndim == 2 else tensor.permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(
        batch, size=size, mode=interpolation, align_corners=False, antialias=True
    )
    out: Pixels = (resized[0, 0] if box.ndim == 2 else resized[0].permute(1, 2, 0)).numpy()
    return out if out.flags.c_contiguous else np.ascontiguousarray(out)


def jitter(pixels: Pixels, operation: int, factor: float) -> Pixels:
    """Brightness, contrast, saturation or hue, with torchvision's meaning of the factor."""
    if operation == HUE:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
        # The hue is a full turn of 256 steps, so that uint8 arithmetic wraps by itself.
        hsv[:, :, 0] += np.uint8(int(factor * 255.0) % 256)
        return _cv(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
    shift = TRUNCATION
    if operation == CONTRAST:
        grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        shift += (1.0 - factor) * round(cv2.mean(grey)[0])
    if pixels.ndim == 2:
        return _cv(cv2.addWeighted(pixels, factor, pixels, 0.0, shift))
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = _IDENTITY * np.float32(factor)
    matrix[:, 3] = shift
    if operation == SATURATION:
        matrix[:, :3] += np.float32(1.0 - factor) * _LUMA_ROWS
    return _cv(cv2.transform(pixels, matrix))


def solarize(pixels: Pixels, threshold: int) -> Pixels:
    """Invert the values from ``threshold`` on."""
    inverted = cv2.bitwise_not(pixels)
    if threshold == 128:
        return _cv(cv2.min(pixels, inverted))
    return np.where(pixels >= threshold, inverted, pixels).astype(np.uint8)


class Normalize(nn.Module):
    """uint8 batches to normalised float, on their device; float passes unchanged.

    Grey batches of one channel come out with as many as there are means.

    Args:
        mean, std: per channel, of values in 0..1.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        scale = torch.tensor([1.0 / (255.0 * value) for value in std])
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)

    def forward(
        self,
        images: UInt8[Tensor, "batch channels height width"]
        | Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Normalise a batch."""
        if images.is_floating_point():
            return images
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)
