"""The views of each method: augmentation of crops, from the experiment's options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from convit_ssl.data.augment.evaluation import EvaluationTransform, evaluation_transform
from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS, Crops, Method, get_method, options_of
from convit_ssl.options import items
from convit_ssl.schema import CropOptions, DataOptions
from convit_ssl.schema_resolved import Resolved

PUBLISHED_SIDE = 224
PUBLISHED_BLUR = (0.1, 2.0)


def augment_config(options: Resolved) -> AugmentConfig:
    """The augmentation of an experiment: its method's, with its own crop sizes and changes.

    Raises:
        UserError: the method is unknown, or does not support this number of crops.
    """
    crops, method = options.crops, get_method(options.method.name)
    _check_counts(method, crops)
    given = {key: value for key, value in items(options.augmentation) if value is not None}
    least = given.pop("min_crop_scale", 0.0)
    own = tuple(given.pop("own", ()))
    smallest, largest = (max(share, least) for share in crops.global_scale)
    least_local, most_local = crops.local_scale
    made = Crops(
        crops.global_size,
        (smallest, largest),
        crops.local_size,
        crops.local_count,
        (least_local, most_local),
    )
    config = method.views(options_of(options.method), made)
    if "blur_sigma" in given:
        given["blur_sigma"] = tuple(given["blur_sigma"])
    elif crops.global_size < PUBLISHED_SIDE:
        # Published in pixels of crops of 224; on 8 pixels the same blur would leave nothing.
        share = crops.global_size / PUBLISHED_SIDE
        given["blur_sigma"] = (PUBLISHED_BLUR[0] * share, PUBLISHED_BLUR[1] * share)
    gain, drop = given.pop("channel_gain", None), given.pop("channel_drop", None)
    data = options.data
    if Reading.of(data).native:
        if own:
            raise UserError(
                "augmentation.own works on 8-bit RGB images; leave it out with data.channels or "
                "data.depth=native"
            )
        mean, std = normalisation(data)
        return config.adapt(**given).for_channels(mean, std, gain, drop)
    return replace(config.adapt(grey_images=options.facts.grey, **given), own=own)


def _check_counts(method: type[Method[Any]], crops: CropOptions) -> None:
    name, count = method.name, method.global_crops
    if crops.global_count != count:
        raise UserError(
            f"crops.global_count={crops.global_count}: method.name={name} makes {count} global "
            f"crop{'s' if count > 1 else ''} of each image; use crops.global_count={count}"
        )
    if crops.local_count and not method.local_crops:
        others = [other.name for other in METHODS.values() if other.local_crops]
        raise UserError(
            f"crops.local_count={crops.local_count}: method.name={name} makes no local crops; "
            f"use crops.local_count=0, or a method that does ({', '.join(others)})"
        )


def plain_view(options: Resolved) -> EvaluationTransform:
    """The view for evaluation: the whole image or its centre, normalised as in training."""
    data = options.data
    if not Reading.of(data).native:
        return evaluation_transform(options.crops.global_size)
    mean, std = normalisation(data)
    return evaluation_transform(options.crops.global_size, mean=mean, std=std)


def normalisation(data: DataOptions) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of native images, computed by the plan."""
    assert data.mean is not None
    assert data.std is not None
    return data.mean, data.std
