"""Wrong words: what was written, and the nearest thing that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The closest of the valid words, by its last part first (``optim.lrr`` -> ``optim.lr``)."""
    valid = list(valid)
    stem, _, leaf = word.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in valid if key.rpartition(".")[0] == stem}
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.5)
    if close:
        return siblings[close[0]]
    whole = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if whole:
        return whole[0]
    same_leaf = [key for key in valid if key.rpartition(".")[2] == leaf]
    return same_leaf[0] if same_leaf else None


def hint(word: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where nothing is near."""
    close = nearest(word, valid)
    return f"; did you mean {close!r}?" if close else ""


def dotted_names(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """As `dotted_keys`, of what a YAML file holds."""
    names: list[str] = []
    for key, value in tree.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += dotted_names(value, f"{prefix}{key}.")
    return names


def dotted_keys(tree: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    """Every key of a configuration tree, inner ones included, without resolving anything."""
    keys: list[str] = []
    if isinstance(tree, ListConfig):
        return keys
    for key in tree:
        name = f"{prefix}{key!s}"
        keys.append(name)
        child = tree._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            keys += dotted_keys(child, f"{name}.")
    return keys
