"""The views of each method: how the crops of an image are made, from the experiment's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convit_ssl.data.augment import AugmentConfig
from convit_ssl.data.evaluation_transform import EvaluationTransform, evaluation_transform
from convit_ssl.data.value_range import Reading
from convit_ssl.errors import UserError

PUBLISHED_SIDE = 224
PUBLISHED_BLUR = (0.1, 2.0)

Range = tuple[float, float]
Maker = Callable[[Any, Range], AugmentConfig]


def _multi_crop(make: Callable[..., AugmentConfig]) -> Maker:
    def views(options: Any, scale: Range) -> AugmentConfig:
        crops = options.crops
        local = (crops.local_size, crops.local_count)
        return make(crops.global_size, *local, scale, tuple(crops.local_scale))

    return views


def _of_one_size(make: Callable[..., AugmentConfig]) -> Maker:
    def views(options: Any, scale: Range) -> AugmentConfig:
        return make(options.crops.global_size, scale=scale)

    return views


def _simclr(options: Any, scale: Range) -> AugmentConfig:
    return AugmentConfig.simclr(options.crops.global_size, scale, options.method.jitter_strength)


def _supervised(options: Any, scale: Range) -> AugmentConfig:
    method, size = options.method, options.crops.global_size
    colours = (method.rand_augment, method.color_jitter, method.erasing)
    return AugmentConfig.supervised(size, *colours, scale)


VIEWS: dict[str, Maker] = {
    "dino": _multi_crop(AugmentConfig.dino),
    "swav": _multi_crop(AugmentConfig.swav),
    "simclr": _simclr,
    "moco_v3": _of_one_size(AugmentConfig.moco_v3),
    "barlow_twins": _of_one_size(AugmentConfig.barlow_twins),
    "linear": _of_one_size(AugmentConfig.crop_and_flip),
    "supervised": _supervised,
}
MULTI_CROP = ("dino", "swav")
ONE_CROP = ("linear", "supervised")


def augment_config(options: Any) -> AugmentConfig:
    """The views of an experiment's method at its crop sizes, with the changes it asks for.

    Raises:
        UserError: the method has no views of its own, or makes another number of crops than
            is asked for.
    """
    crops, name = options.crops, options.method.name
    if name not in VIEWS:
        raise UserError(
            f"method.name={name} has no views of its own; define them in "
            f"convit_ssl/adapters/views.py (defined: {', '.join(VIEWS)})"
        )
    _check_counts(name, crops)
    given = {key: value for key, value in dict(options.augmentation).items() if value is not None}
    least = given.pop("min_crop_scale", 0.0)
    smallest, largest = (max(share, least) for share in crops.global_scale)
    config = VIEWS[name](options, (smallest, largest))
    if "blur_sigma" in given:
        given["blur_sigma"] = tuple(given["blur_sigma"])
    elif crops.global_size < PUBLISHED_SIDE:
        # Published in pixels of crops of 224; on 8 pixels the same blur would leave nothing.
        share = crops.global_size / PUBLISHED_SIDE
        given["blur_sigma"] = (PUBLISHED_BLUR[0] * share, PUBLISHED_BLUR[1] * share)
    gain, drop = given.pop("channel_gain", None), given.pop("channel_drop", None)
    data = options.data
    if Reading.of(data).native:
        return config.adapt(**given).for_channels(data.mean, data.std, gain, drop)
    return config.adapt(grey_images=options.facts.grey, **given)


def _check_counts(name: str, crops: Any) -> None:
    count = 1 if name in ONE_CROP else 2
    if crops.global_count != count:
        raise UserError(
            f"crops.global_count={crops.global_count}: method.name={name} makes {count} global "
            f"crop{'s' if count > 1 else ''} of each image; use crops.global_count={count}"
        )
    if crops.local_count and name not in MULTI_CROP:
        raise UserError(
            f"crops.local_count={crops.local_count}: method.name={name} makes no local crops; "
            f"use crops.local_count=0, or a method that does ({', '.join(MULTI_CROP)})"
        )


def plain_view(options: Any) -> EvaluationTransform:
    """The view of evaluation: the whole image or its centre, normalised as in training."""
    data = options.data
    own = {"mean": data.mean, "std": data.std} if Reading.of(data).native else {}
    return evaluation_transform(options.crops.global_size, **own)
