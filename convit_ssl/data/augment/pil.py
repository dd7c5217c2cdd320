"""The published pipelines: torchvision's on Pillow images, and timm's for supervision.

Both draw from the global random states, seeded for each sample and put back after.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from convit_ssl.data.augment.randomness import seeded_globals
from convit_ssl.data.augment.spec import AugmentConfig, CropConfig


class RandomBlur:
    """Gaussian blur with probability ``prob`` and a sigma drawn uniformly, in pixels.

    Source: facebookresearch/dino ``utils.GaussianBlur``, with the same draws.
    """

    def __init__(self, prob: float, sigma: tuple[float, float]) -> None:
        self.prob = prob
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur, or not."""
        if random.random() > self.prob:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class RandomSolarize:
    """Invert the values from ``threshold`` on, with probability ``prob``.

    Source: facebookresearch/dino ``utils.Solarization``, with the same draws.
    """

    def __init__(self, prob: float, threshold: int) -> None:
        self.prob = prob
        self.threshold = threshold

    def __call__(self, image: Image.Image) -> Image.Image:
        """Solarise, or not."""
        if random.random() < self.prob:
            return ImageOps.solarize(image, self.threshold)
        return image


class RandomQuarterTurns:
    """Turn by 0, 90, 180 or 270 degrees."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Turn counter-clockwise."""
        turns = int(torch.randint(4, ()))
        turn = Image.Transpose
        if turns == 0:
            return image
        return image.transpose((turn.ROTATE_90, turn.ROTATE_180, turn.ROTATE_270)[turns - 1])


def pil_transform(crop: CropConfig, config: AugmentConfig) -> Callable[[Image.Image], Tensor]:
    """The torchvision composition for one group of crops."""
    from torchvision import transforms

    interpolation = transforms.InterpolationMode(crop.interpolation)
    steps: list[Any] = [
        transforms.RandomResizedCrop(
            crop.height_width, scale=crop.scale, ratio=crop.ratio, interpolation=interpolation
        )
    ]
    if crop.horizontal_flip > 0.0:
        steps.append(transforms.RandomHorizontalFlip(crop.horizontal_flip))
    if crop.vertical_flip > 0.0:
        steps.append(transforms.RandomVerticalFlip(crop.vertical_flip))
    if crop.rotate90:
        steps.append(RandomQuarterTurns())
    brightness, contrast, saturation, hue = crop.jitter
    if config.grey_images:
        saturation = hue = 0.0
    if crop.jitter_prob > 0.0 and max(brightness, contrast, saturation, hue) > 0.0:
        jitter = transforms.ColorJitter(brightness, contrast, saturation, hue)
        steps.append(transforms.RandomApply([jitter], p=crop.jitter_prob))
    if crop.grey_prob > 0.0 and not config.grey_images:
        steps.append(transforms.RandomGrayscale(crop.grey_prob))
    if crop.blur_prob > 0.0:
        steps.append(RandomBlur(crop.blur_prob, crop.blur_sigma))
    if crop.solarize_prob > 0.0:
        steps.append(RandomSolarize(crop.solarize_prob, crop.solarize_threshold))
    steps += [transforms.ToTensor(), transforms.Normalize(config.mean, config.std)]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


class PilAugmentation:
    """torchvision's transforms of every crop; bit-identical to them for the same seed."""

    seeded = True

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self._transforms = [
            transform
            for crop in config.crops
            for transform in [pil_transform(crop, config)] * crop.count
        ]

    def __call__(
        self, image: Image.Image, seed: int | None = None
    ) -> Float[Tensor, "3 height width"] | list[Float[Tensor, "3 height width"]]:
        """Normalised crops of a Pillow image; without a seed the global states are used."""
        if seed is None:
            crops = [transform(image) for transform in self._transforms]
        else:
            with seeded_globals(seed):
                crops = [transform(image) for transform in self._transforms]
        return crops if len(crops) > 1 else crops[0]


class TimmAugmentation:
    """RandAugment (or colour jitter) and random erasing, by ``timm.data.create_transform``.

    Crops of 32 pixels and less are shifted by up to an eighth of their side in place of
    being cropped at random, as DeiT does for CIFAR.
    """

    seeded = True

    def __init__(self, config: AugmentConfig) -> None:
        from timm.data.transforms_factory import create_transform
        from torchvision import transforms

        (crop,) = config.crops
        height, width = crop.height_width
        self.config = config
        self._transform: Any = create_transform(
            (3, height, width),
            is_training=True,
            scale=crop.scale,
            ratio=crop.ratio,
            hflip=crop.horizontal_flip,
            vflip=crop.vertical_flip,
            color_jitter=max(crop.jitter),
            auto_augment=config.rand_augment,
            interpolation=crop.interpolation,
            mean=config.mean,
            std=config.std,
            re_prob=config.erase_prob,
            re_mode="pixel",
            re_count=1,
        )
        if max(height, width) <= 32:
            mode = transforms.InterpolationMode(crop.interpolation)
            shift = transforms.RandomCrop((height, width), padding=max(height, width) // 8)
            resize = transforms.Resize((height, width), mode)
            self._transform.transforms[0] = transforms.Compose([resize, shift])
        if crop.rotate90:
            self._transform.transforms.insert(1, RandomQuarterTurns())

    def __call__(
        self, image: Image.Image, seed: int | None = None
    ) -> Float[Tensor, "3 height width"]:
        """A normalised crop of a Pillow image."""
        if seed is None:
            crop: Tensor = self._transform(image)
        else:
            with seeded_globals(seed):
                crop = self._transform(image)
        return crop
