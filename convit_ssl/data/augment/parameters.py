"""The random numbers of one crop, drawn once and then applied by ``fast`` or ``device``."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from convit_ssl.data.augment.spec import AugmentConfig, CropConfig

# The order in which the jitter's operations are numbered, as in torchvision.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_TRIES = 10


@dataclass(slots=True)
class CropParameters:
    """What happens to one crop, in the order of the fields.

    Attributes:
        top, left, height, width: the box in pixels of the image.
        flip, vertical_flip: whether.
        quarter_turns: counter-clockwise turns of 90 degrees.
        jitter: (operation, factor) pairs in the order they are applied.
        grey: whether the colour is taken away.
        sigma: of the blur in pixels; 0 for none.
        solarize: whether.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    vertical_flip: bool = False
    quarter_turns: int = 0
    jitter: tuple[tuple[int, float], ...] = ()
    grey: bool = False
    sigma: float = 0.0
    solarize: bool = False


def _draw_box(
    crop: CropConfig, height: int, width: int, rng: random.Random
) -> tuple[int, int, int, int]:
    """(top, left, height, width), by torchvision's RandomResizedCrop.

    Images too thin for any box of the right shape give their whole width, or height, at a random
    place, where torchvision takes the middle: training would never see the rest of a strip.
    """
    area = height * width
    low, high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    smallest, span = crop.scale[0], crop.scale[1] - crop.scale[0]
    draw = rng.random
    for _ in range(_TRIES):
        target = area * (smallest + span * draw())
        aspect = math.exp(low + (high - low) * draw())
        w = round(math.sqrt(target * aspect))
        h = round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draw() * (height - h + 1)), int(draw() * (width - w + 1)), h, w
    w, h = width, height
    if width / height < crop.ratio[0]:
        h = min(height, max(1, round(width / crop.ratio[0])))
    elif width / height > crop.ratio[1]:
        w = min(width, max(1, round(height * crop.ratio[1])))
    return int(draw() * (height - h + 1)), int(draw() * (width - w + 1)), h, w


def _draw_jitter(
    crop: CropConfig, grey_images: bool, rng: random.Random
) -> tuple[tuple[int, float], ...]:
    """Factors in random order; brightness, contrast and saturation about 1, hue about 0."""
    drawn = []
    for operation, strength in enumerate(crop.jitter[:2] if grey_images else crop.jitter):
        if strength == 0.0:
            continue
        if operation == HUE:
            drawn.append((operation, (2.0 * rng.random() - 1.0) * strength))
        else:
            low, high = max(0.0, 1.0 - strength), 1.0 + strength
            drawn.append((operation, low + (high - low) * rng.random()))
    rng.shuffle(drawn)
    return tuple(drawn)


def draw_crop(
    crop: CropConfig, height: int, width: int, rng: random.Random, grey_images: bool = False
) -> CropParameters:
    """Draw one crop of an image of ``height`` x ``width`` pixels."""
    draw = rng.random
    drawn = CropParameters(*_draw_box(crop, height, width, rng))
    drawn.flip = draw() < crop.horizontal_flip
    drawn.vertical_flip = draw() < crop.vertical_flip
    if crop.rotate90:
        drawn.quarter_turns = int(4.0 * draw())
    if draw() < crop.jitter_prob:
        drawn.jitter = _draw_jitter(crop, grey_images, rng)
    drawn.grey = draw() < crop.grey_prob and not grey_images
    if draw() < crop.blur_prob:
        low, high = crop.blur_sigma
        drawn.sigma = low + (high - low) * draw()
    drawn.solarize = draw() < crop.solarize_prob
    return drawn


def draw_crops(config: AugmentConfig, height: int, width: int, seed: int) -> list[CropParameters]:
    """All crops of one image, in the order of ``config.crops``."""
    rng = random.Random(seed)
    return [
        draw_crop(crop, height, width, rng, config.grey_images)
        for crop in config.crops
        for _ in range(crop.count)
    ]
