"""Wrong words: what was written, and the nearest thing that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from omegaconf import DictConfig, ListConfig

# What options are called in other projects.
ELSEWHERE = {
    "run.dir": ("out", "output", "output_dir", "out_dir", "save_dir", "log_dir", "exp_dir"),
    "run.name": ("name", "exp_name", "experiment_name", "run_name"),
    "run.gpus_per_node": ("gpus", "devices", "num_gpus", "ngpus", "n_gpus"),
    "run.precision": ("amp", "fp16", "bf16", "mixed_precision", "use_fp16"),
    "trunk": ("model", "arch", "backbone", "network", "architecture"),
    "data": ("dataset",),
    "data_dir": ("data_path", "path", "folder", "images", "train_dir", "root"),
    "data.workers": ("num_workers",),
    "crops.global_size": (
        "img_size",
        "image_size",
        "size",
        "crop_size",
        "resolution",
        "input_size",
    ),
    "optim.name": ("optimizer", "opt"),
    "optim.lr": ("learning_rate", "base_lr"),
    "optim.epochs": ("num_epochs", "max_epochs"),
    "optim.batch_size": ("bs", "batch", "batch_size_per_gpu"),
    "optim.weight_decay": ("wd",),
    "weights": ("checkpoint", "ckpt", "init_from"),
}
_ELSEWHERE = {other: key for key, others in ELSEWHERE.items() for other in others}


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The closest of the valid words, by its last part first (``optim.lrr`` -> ``optim.lr``).

    A word without a section is looked for in all of them (``epochs`` -> ``optim.epochs``), also by
    the names that other projects have for it.
    """
    valid = list(valid)
    stem, _, leaf = word.rpartition(".")
    if not stem and _ELSEWHERE.get(word) in valid:
        return _ELSEWHERE[word]
    same_leaf = [key for key in valid if key.rpartition(".")[2] == leaf]
    if not stem and len(same_leaf) == 1:
        return same_leaf[0]
    siblings = {key.rpartition(".")[2]: key for key in valid if key.rpartition(".")[0] == stem}
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.5)
    if close:
        return siblings[close[0]]
    whole = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if whole:
        return whole[0]
    return same_leaf[0] if same_leaf else None


def hint(word: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where nothing is near."""
    close = nearest(word, valid)
    return f"; did you mean {close!r}?" if close else ""


def dotted_keys(tree: DictConfig | ListConfig | Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Every key of a configuration, or of what a YAML file holds, inner ones included.

    Nothing is resolved.
    """
    keys: list[str] = []
    if isinstance(tree, ListConfig):
        return keys
    for key in tree:
        name = f"{prefix}{key!s}"
        keys.append(name)
        child = tree._get_node(key) if isinstance(tree, DictConfig) else tree[key]
        if isinstance(child, dict) or _is_section(child):
            keys += dotted_keys(child, f"{name}.")
    return keys


def _is_section(node: Any) -> TypeGuard[DictConfig]:
    return isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation()
