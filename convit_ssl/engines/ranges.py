"""What numbers of an experiment can mean anything, whatever the data and the machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convit_ssl.errors import UserError

AT_LEAST = {
    "optim.batch_size": 1,
    "optim.accumulate": 1,
    "optim.epochs": 1,
    "optim.warmup_epochs": 0,
    "optim.weight_decay": 0,
    "optim.skip_nan_steps": 0,
    "run.processes": 1,
    "run.nodes": 1,
    "run.threads": 1,
    "run.keep_checkpoints": 1,
    "run.checkpoint_minutes": 0,
    "run.grace_seconds": 0,
    "run.requeue": 0,
    "data.workers": 0,
    "data.max_corrupt": 0,
    "data.white_level": 0,
    "trunk.embed_dim": 1,
    "trunk.depth": 1,
    "trunk.num_heads": 1,
    "trunk.num_gpsa_layers": 0,
    "trunk.patch_size": 1,
    "crops.global_size": 1,
    "crops.local_count": 0,
    "watch.every": 0,
    "watch.knn_k": 1,
    "watch.knn_images": 1,
}
# What every reader of images delivers.
IMAGE_CHANNELS = 3
ABOVE = {"run.timeout_minutes": 0, "run.hours": 0, "trunk.mlp_ratio": 0}
SHARES = (
    "augmentation.horizontal_flip",
    "augmentation.vertical_flip",
    "augmentation.rotate90",
    "augmentation.solarize",
    "trunk.drop_rate",
    "trunk.drop_path_rate",
)


def check_numbers(tree: DictConfig) -> None:
    """Refuse numbers that no experiment can have.

    Raises:
        UserError: with the option, its value and what it can be.
    """
    channels = OmegaConf.select(tree, "trunk.in_chans")
    if channels is not None and channels != IMAGE_CHANNELS:
        raise UserError(
            f"trunk.in_chans={channels}: every image is read as {IMAGE_CHANNELS} channels, grey "
            f"ones as {IMAGE_CHANNELS} equal ones; leave trunk.in_chans at {IMAGE_CHANNELS}"
        )
    for key, least in AT_LEAST.items():
        _check(tree, key, least, math.inf, f"{least} or more")
    for key, bound in ABOVE.items():
        _check(tree, key, math.nextafter(bound, math.inf), math.inf, f"more than {bound}")
    for key in SHARES:
        _check(tree, key, 0, 1, "from 0 to 1")
    _check_finite(OmegaConf.to_container(tree, throw_on_missing=False))
    name = OmegaConf.select(tree, "run.name")
    if name is not None and (".." in Path(str(name)).parts or Path(str(name)).is_absolute()):
        raise UserError(
            f"run.name={name} leaves the folder of runs; give a plain name, or the whole folder "
            "with run.dir=..."
        )


def _check_finite(node: Any, key: str = "") -> None:
    if isinstance(node, dict):
        for name, child in node.items():
            _check_finite(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{key}={node}: give a finite number")


def _check(tree: DictConfig, key: str, least: float, most: float, words: str) -> None:
    value = OmegaConf.select(tree, key, throw_on_missing=False)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return  # left to the data or the machine
    if not (least <= value <= most and math.isfinite(value)):
        raise UserError(f"{key}={value}: give {words}")
