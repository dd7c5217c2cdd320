"""Views of images of any number of channels: float arrays (H, W, C) to normalised tensors.

What means nothing beyond RGB is left out: hue, saturation, grey and solarisation. In their place
each channel has a gain of its own, and now and then one channel is missing. Crops, flips, turns
and blur are those of the other pipelines, drawn by the same rule.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.parameters import BRIGHTNESS, CONTRAST, CropParameters, draw_crops
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig

FloatImage = npt.NDArray[np.float32]
_OWN_DRAWS = 0x9E3779B97F4A7C15  # keeps gains and drops apart from what boxes are drawn with


def resize_channels(image: FloatImage, size: tuple[int, int], interpolation: str) -> FloatImage:
    """(H, W, C) at another size, antialiased; nearest, bilinear or bicubic."""
    if image.shape[:2] == size:
        return image
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    smooth = interpolation != "nearest"
    resized = nn.functional.interpolate(
        batch,
        size=size,
        mode="bicubic" if interpolation == "lanczos" else interpolation,
        align_corners=False if smooth else None,
        antialias=smooth,
    )
    out: FloatImage = resized[0].permute(1, 2, 0).numpy()
    return out


def normalised(
    image: FloatImage, mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32]
) -> Float[Tensor, "chans height width"]:
    """(H, W, C) as a normalised tensor (C, H, W)."""
    values = (image - mean) / std
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))


class ChannelAugmentation:
    """Crops of an (H, W, C) float array as normalised tensors (C, h, w).

    Args:
        config: the crops; ``mean`` and ``std`` have a value for each channel.
    """

    seeded = True
    reads_arrays = True

    def __init__(self, config: AugmentConfig) -> None:
        cv2.setNumThreads(0)
        self.config = config
        self.min_side = config.min_side
        self._groups = [crop for crop in config.crops for _ in range(crop.count)]
        self._mean = np.array(config.mean, np.float32)
        self._std = np.array(config.std, np.float32)

    def __call__(
        self, image: FloatImage, seed: int | None = None
    ) -> Float[Tensor, "chans height width"] | list[Float[Tensor, "chans height width"]]:
        """Crops of an array; without a seed they are drawn anew."""
        if seed is None:
            seed = random.getrandbits(63)
        image = as_channels(image, len(self._mean))
        drawn = draw_crops(self.config, image.shape[0], image.shape[1], seed)
        own = random.Random(seed ^ _OWN_DRAWS)
        crops = [
            self._crop(image, crop, parameters, own)
            for crop, parameters in zip(self._groups, drawn, strict=True)
        ]
        return crops if len(crops) > 1 else crops[0]

    def _crop(
        self, image: FloatImage, crop: CropConfig, drawn: CropParameters, own: random.Random
    ) -> Tensor:
        bottom, right = drawn.top + drawn.height, drawn.left + drawn.width
        out = image[drawn.top : bottom, drawn.left : right]
        out = resize_channels(out, crop.height_width, crop.interpolation)
        out = out[:, ::-1] if drawn.flip else out
        out = out[::-1] if drawn.vertical_flip else out
        out = np.rot90(out, drawn.quarter_turns) if drawn.quarter_turns else out
        out = self._coloured(out, crop, drawn, own)
        if drawn.sigma > 0.0:
            out = blurred(np.ascontiguousarray(out), drawn.sigma)
        return normalised(out, self._mean, self._std)

    def _coloured(
        self, image: FloatImage, crop: CropConfig, drawn: CropParameters, own: random.Random
    ) -> FloatImage:
        """Gain of each channel, contrast of all, and a channel that is missing."""
        channels = len(self._mean)
        strength = self.config.channel_gain
        strength = crop.jitter[BRIGHTNESS] if strength is None else strength
        gains = [1.0 + strength * (2.0 * own.random() - 1.0) for _ in range(channels)]
        dropped = own.randrange(channels) if own.random() < self.config.channel_drop else None
        for operation, factor in drawn.jitter:
            if operation == BRIGHTNESS:
                image = image * np.array(gains, np.float32)
            elif operation == CONTRAST:
                mean = image.mean(axis=(0, 1), keepdims=True)
                image = mean + (image - mean) * np.float32(factor)
        if dropped is not None and channels > 1:
            image = image.copy()
            image[..., dropped] = self._mean[dropped]
        return image


def blurred(image: FloatImage, sigma: float) -> FloatImage:
    """Gaussian blur of (H, W, C); the border is extended."""
    parts = []
    for first in range(0, image.shape[-1], 4):  # OpenCV blurs four channels at a time
        part = np.ascontiguousarray(image[..., first : first + 4])
        out = cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        parts.append(out.reshape(part.shape))
    return np.concatenate(parts, axis=-1)


def as_channels(image: Any, channels: int) -> FloatImage:
    """An (H, W, C) float array as it is; a Pillow image with its channels repeated."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        return image
    array = np.asarray(image, np.float32) / np.float32(255.0)
    array = array[..., None] if array.ndim == 2 else array
    return array[..., [place % array.shape[-1] for place in range(channels)]]
