"""Options of the views: crops and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convit_ssl.options import RANGE, Length, PerView, option


@dataclass
class CropOptions:
    """Views of each image: large (global) crops, and small (local) ones for DINO and SwAV."""

    global_count: int = option(2, "Large crops per image.", unit="crops", least=1)
    global_size: int = option(224, "Side of a large crop.", unit="pixels", least=1)
    global_scale: list[float] = option(
        [0.4, 1.0],
        "Smallest and largest area of a large crop.",
        unit="fraction of the image's area", above=0, most=1, form=RANGE, numbers=2,
    )  # fmt: skip
    local_count: int = option(0, "Small crops per image; 0 for none.", unit="crops", least=0)
    local_size: int = option(96, "Side of a small crop.", unit="pixels", least=1)
    local_scale: list[float] = option(
        [0.05, 0.4],
        "Smallest and largest area of a small crop.",
        unit="fraction of the image's area", above=0, most=1, form=RANGE, numbers=2,
    )  # fmt: skip
    physical: Length = option(
        None,
        "First cut each image to a square of this physical size, at a random place, so that all "
        "crops have one scale. The size of a pixel is read from the files, or set by "
        "data.pixel_size.",
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

    horizontal_flip: PerView = option(
        None,
        "Mirror left and right. Set 0 for letters, digits and organs, where left and right differ.",
        **CHANCE,
    )
    vertical_flip: PerView = option(
        None, "Mirror up and down, for cells, tiles and aerial images.", **CHANCE
    )
    rotate90: bool | None = option(
        None, "Rotate by a random multiple of 90 degrees, for images without an up direction."
    )
    jitter: PerView = option(
        None,
        "Apply colour jitter with the four strengths below; 0 switches it off.",
        **CHANCE,
    )
    brightness: PerView = option(None, "Brightness is multiplied by 1 ± this.", **STRENGTH)
    contrast: PerView = option(None, "Contrast is multiplied by 1 ± this.", **STRENGTH)
    saturation: PerView = option(None, "Saturation is multiplied by 1 ± this.", **STRENGTH)
    hue: PerView = option(
        None,
        "Hue is shifted by ± this fraction of the colour circle. Set 0 if colour carries meaning, "
        "as in stained tissue.",
        most=0.5,
        **STRENGTH,
    )
    grey: PerView = option(None, "Convert to greyscale.", **CHANCE)
    blur: PerView = option(
        None, "Gaussian blur, with a standard deviation from blur_sigma.", **CHANCE
    )
    solarize: PerView = option(
        None,
        "Invert bright pixels. A single number applies to the views that the method solarises "
        "(the second of BYOL's pair), or to all views if it solarises none. Set 0 for drawings "
        "on a plain background.",
        **CHANCE,
    )
    min_crop_scale: float | None = option(
        None,
        "Smallest area of a large crop. If a small crop does not show what the object is, set 0.6. "
        "Linear probes then see whole images, unless crops.global_scale is given.",
        unit="fraction of the image's area", above=0, most=1,
    )  # fmt: skip
    blur_sigma: list[float] | None = option(
        None,
        "Smallest and largest standard deviation of the blur. The default is the published 0.1 to "
        "2 for crops of 224 pixels, and proportionally less for smaller ones.",
        unit="pixels", above=0, form=RANGE, numbers=2,
    )  # fmt: skip
    channel_gain: float | None = option(
        None,
        "For images that are not RGB: multiply each channel by 1 ± this. Default: the method's "
        "brightness.",
        unit="factor", least=0, most=1,
    )  # fmt: skip
    channel_drop: float | None = option(
        None,
        "For images that are not RGB: drop one channel of a view. Default: half of the method's "
        "probability of grey.",
        unit="probability", least=0, most=1,
    )  # fmt: skip
    own: list[str] = option(
        [],
        "Augmentations registered by a plugin, applied to each view after all others.",
        form="a list of names, such as [dust]",
    )
