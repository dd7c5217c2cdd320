"""Options of the views: crops and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convit_ssl.options import RANGE, option


@dataclass
class CropOptions:
    """Views of each image: large (global) crops, and small (local) ones for DINO and SwAV."""

    global_count: int = option(2, "Large crops per image.", unit="crops", least=1)
    global_size: int = option(224, "Side of a large crop.", unit="pixels", least=1)
    global_scale: list[float] = option(
        [0.4, 1.0],
        "Smallest and largest area of a large crop.",
        unit="share of the image's area", above=0, most=1, form=RANGE, numbers=2,
    )  # fmt: skip
    local_count: int = option(0, "Small crops per image; 0 for none.", unit="crops", least=0)
    local_size: int = option(96, "Side of a small crop.", unit="pixels", least=1)
    local_scale: list[float] = option(
        [0.05, 0.4],
        "Smallest and largest area of a small crop.",
        unit="share of the image's area", above=0, most=1, form=RANGE, numbers=2,
    )  # fmt: skip
    physical: Any = option(
        None,
        "Cut each image to a square of this size first, at a random place, so that crops are "
        "shares of the square and have one scale. Files say how large their pixels are, or "
        "data.pixel_size does.",
        form="a length, such as 50um or 2km",
    )


# Of changes that may differ from view to view.
CHANCE: dict[str, Any] = {"unit": "probability", "least": 0, "most": 1, "per_view": True}
STRENGTH: dict[str, Any] = {"unit": "strength", "least": 0, "per_view": True}


@dataclass
class AugmentationOptions:
    """Changes to the views that a method is published with; null leaves them as published.

    Where views differ give a list: [first, second] of the large crops, or [first, second, small].
    """

    horizontal_flip: Any = option(
        None,
        "Mirror left and right. 0 for letters, digits and organs, where sides matter.",
        **CHANCE,
    )
    vertical_flip: Any = option(
        None, "Mirror up and down, for cells, tiles and aerial images.", **CHANCE
    )
    rotate90: bool | None = option(
        None, "Turn by a random number of quarter turns, for images without an upper side."
    )
    jitter: Any = option(
        None,
        "How often colours are jittered, by the four strengths below. 0 switches jitter off.",
        **CHANCE,
    )
    brightness: Any = option(None, "Brightness is multiplied by 1 ± this.", **STRENGTH)
    contrast: Any = option(None, "Contrast is multiplied by 1 ± this.", **STRENGTH)
    saturation: Any = option(None, "Saturation is multiplied by 1 ± this.", **STRENGTH)
    hue: Any = option(
        None,
        "Hue is shifted by ± this share of the colour circle. 0 where a colour has a meaning, as "
        "in stained tissue.",
        most=0.5,
        **STRENGTH,
    )
    grey: Any = option(None, "Take the colour away.", **CHANCE)
    blur: Any = option(None, "Blur with a Gaussian of blur_sigma.", **CHANCE)
    solarize: Any = option(
        None,
        "Invert bright pixels. One number changes the views that a method solarises (the second "
        "of BYOL's pair), or all where it solarises none. 0 for strokes on an "
        "empty ground.",
        **CHANCE,
    )
    min_crop_scale: float | None = option(
        None,
        "The smallest area of a large crop. If a small crop does not show what the object is, set "
        "0.6. Linear probes then see whole images, unless crops.global_scale is given.",
        unit="share of the image's area", above=0, most=1,
    )  # fmt: skip
    blur_sigma: list[float] | None = option(
        None,
        "Smallest and largest standard deviation of the blur. Published as 0.1 to 2 for crops of "
        "224 pixels, and in proportion for smaller ones.",
        unit="pixels", above=0, form=RANGE, numbers=2,
    )  # fmt: skip
    channel_gain: float | None = option(
        None,
        "Beyond RGB, each channel is multiplied by 1 ± this; by default by the method's "
        "brightness.",
        unit="factor", least=0, most=1,
    )  # fmt: skip
    channel_drop: float | None = option(
        None,
        "Beyond RGB, how many views lack one channel; by default half of the method's probability "
        "of grey.",
        unit="probability", least=0, most=1,
    )  # fmt: skip
    own: list[str] = option(
        [],
        "Augmentations that a plugin registered, applied to each view after all others.",
        form="a list of names, such as [dust]",
    )
