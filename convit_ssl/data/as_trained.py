"""How a network's images were read, resized and normalised, from what its weights record."""

from __future__ import annotations

from typing import Any

from convit_ssl.data.augment.evaluation import EvaluationTransform, evaluation_transform
from convit_ssl.data.reading.value_range import Reading

_OF_TRANSFORM = ("mean", "std", "interpolation", "crop_ratio")


def as_trained(network: Any) -> tuple[EvaluationTransform, Reading]:
    """The transform and the reading of a network that `load_trunk` returned.

    Args:
        network: with a `config`, and a `provenance` where it was loaded; what neither of them
            records is the default, such as ImageNet's mean and standard deviation.

    Returns:
        `transform` and `reading` for :func:`convit_ssl.data.open_dataset`.
    """
    entry = getattr(network, "provenance", {}).get("entry") or {}
    return recorded(network.config.img_size, entry.get("data"))


def recorded(img_size: int | tuple[int, int], settings: Any) -> tuple[EvaluationTransform, Reading]:
    """The same from the `data` section of a checkpoint.

    Args:
        img_size: the network's, in pixels; one number, or height and width.
        settings: the section; anything but a dictionary counts as empty.
    """
    known = settings if isinstance(settings, dict) else {}
    chosen = {key: known[key] for key in _OF_TRANSFORM if key in known}
    return evaluation_transform(img_size, **chosen), Reading.of(known)
