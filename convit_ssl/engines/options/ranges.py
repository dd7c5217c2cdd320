"""What values of an experiment can mean anything, whatever the data and the machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convit_ssl.engines.options.describe import all_options
from convit_ssl.errors import UserError
from convit_ssl.options import RANGE, Described

MOST_VIEWS = 3  # first large, second large, small


def check_values(tree: DictConfig) -> None:
    """Refuse what no experiment can have, by the ranges that options state.

    Raises:
        UserError: with the option, its value and what it can be.
    """
    method = _select(tree, "method.name")
    for found in all_options(None if method is None else str(method)):
        value = _select(tree, found.key)
        if value is not None:
            _check(found, OmegaConf.to_container(value) if OmegaConf.is_list(value) else value)
    _check_finite(OmegaConf.to_container(tree, throw_on_missing=False))
    name = _select(tree, "run.name")
    if name is not None and (".." in Path(str(name)).parts or Path(str(name)).is_absolute()):
        raise UserError(
            f"run.name={name} points outside the folder of runs; give a plain name, or the whole "
            f"path with run.dir=..."
        )


def _select(tree: DictConfig, key: str) -> Any:
    """The value of an option; None where it is not there."""
    try:
        return OmegaConf.select(tree, key, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: the configuration does not resolve: {error}") from None


def _check(found: Described, value: Any) -> None:
    option = found.option
    if option.choices and value not in option.choices:
        *first, last = option.choices
        raise UserError(f"{found.key}={value!r}: use {', '.join(first)} or {last}")
    if option.per_view:
        _check_views(found, value)
    if option.numbers and isinstance(value, list):
        _check_list(found, value)
    listed = value if isinstance(value, list) else [value]
    numbers = [n for n in listed if isinstance(n, (int, float)) and not isinstance(n, bool)]
    if option.bounds and not all(option.allows(n) and math.isfinite(n) for n in numbers):
        raise UserError(f"{found.key}={_written(value)}: give {option.bounds}")


def _check_list(found: Described, value: list[Any]) -> None:
    """So many numbers; a range begins with the smaller one."""
    falling = found.option.form == RANGE and value != sorted(value)
    if len(value) != found.option.numbers or falling:
        raise UserError(f"{found.key}={_written(value)}: give {found.option.form}")


def _check_views(found: Described, value: Any) -> None:
    """One number, or a list with one for each kind of view."""
    listed = value if isinstance(value, list) else [value]
    plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in listed)
    if not plain or (isinstance(value, list) and not 2 <= len(value) <= MOST_VIEWS):
        raise UserError(
            f"{found.key}={_written(value)}: give a number, or a list with one for each kind of "
            "view: [first, second] of the large crops, or [first, second, small]"
        )


def _written(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _check_finite(node: Any, key: str = "") -> None:
    if isinstance(node, dict):
        for name, child in node.items():
            _check_finite(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for child in node:
            _check_finite(child, key)
    elif isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{key}={node}: give a finite number")
