"""Set what depends on the size of the collection, unless the user set it."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from convit_ssl.methods import Choice, scale_to_data
from convit_ssl.methods.scale import Method, Value

# Name in methods/scale.py -> options that it sets.
OPTIONS: dict[str, tuple[str, ...]] = {
    "epochs": ("optim.epochs",),
    "warmup_epochs": ("optim.warmup_epochs",),
    "batch_size": ("optim.batch_size",),
    "patch_size": ("trunk.patch_size",),
    "global_crop_size": ("crops.global_size",),
    "global_crop_scale": ("crops.global_scale",),
    "num_local_crops": ("crops.local_count",),
    "local_crop_size": ("crops.local_size",),
    "local_crop_scale": ("crops.local_scale",),
    "momentum": ("method.momentum",),
    "out_dim": ("method.out_dim",),
    "teacher_temperature": ("method.teacher_temperature", "method.warmup_teacher_temperature"),
    "num_prototypes": ("method.prototypes",),
}
# From so many images on, an experiment keeps the length, batch and head that it was published with.
PUBLISHED_FROM = 200_000
SIZE_OF_IMAGE = ("patch_size", "global_crop_size", "local_crop_size", "num_local_crops")


def scale(
    tree: DictConfig, explicit: frozenset[str], images: int, size: tuple[int, int]
) -> dict[str, Choice]:
    """Change the options in place; returns what was chosen, with reasons.

    Args:
        tree: the experiment.
        explicit: dotted keys that the user set; they win.
        images: number of training images.
        size: typical (height, width) in pixels.
    """
    labelled = tree.method.name in ("supervised", "linear")
    method = cast(Method, "simclr" if labelled else tree.method.name)
    if tree.weights and tree.trunk.patch_size:
        explicit = explicit | {"trunk.patch_size"}
    given = {name: _given(tree, keys) for name, keys in OPTIONS.items() if explicit & set(keys)}
    rules = scale_to_data(images, size, method)
    overrides = {name: value for name, value in given.items() if name in rules}
    choices = scale_to_data(images, size, method, cast("dict[str, Value]", overrides))
    chosen: dict[str, Choice] = {}
    for name, choice in choices.items():
        if images >= PUBLISHED_FROM and name not in SIZE_OF_IMAGE:
            continue
        if labelled and name == "global_crop_scale":
            continue
        chosen[name] = choice
        if name not in overrides:
            for key in OPTIONS[name]:
                OmegaConf.update(tree, key, _plain(choice.value))
    return chosen


def _given(tree: DictConfig, keys: tuple[str, ...]) -> Any:
    value = OmegaConf.select(tree, keys[0])
    return tuple(value) if OmegaConf.is_list(value) else value


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
