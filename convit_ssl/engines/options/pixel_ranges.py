"""Which values become black and white in a run, and on what grounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.data import ImageFiles
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, sorted_checkpoints
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.first_start import read_options
from convit_ssl.errors import UserError
from convit_ssl.evaluation.progress import progress_bar

OPTIONS = ("white_level", "signed_range", "float_range")


def check_ranges(tree: Draft) -> None:
    """Refuse a range that is not two increasing numbers.

    Raises:
        UserError: names the option.
    """
    for name in ("signed_range", "float_range"):
        value = getattr(tree.data, name)
        if value is not None and getattr(Reading.of({name: list(value)}), name) is None:
            raise UserError(
                f"data.{name}={list(value)}: give two increasing numbers, the values that "
                "become black and white, such as [-1000,400]"
            )


def choose_ranges(tree: Draft, train: ImageFiles, folder: Path | None) -> tuple[str, ...]:
    """Set what the user and the starting weights left open, from all training images.

    A run that is resumed keeps its ranges, whatever images came or went.

    Args:
        tree: the options; changed in place.
        train: the images.
        folder: of the run that may be resumed; None for a new one.

    Returns:
        What somebody should know of the images, in sentences.
    """
    before = recorded_data(folder, OPTIONS)
    for name, value in before.items():
        if getattr(tree.data, name) is None:
            setattr(tree.data, name, value)
    with progress_bar("reading all images", "images") as progress:
        found = train.survey(progress)
    if Reading.of(tree.data).native or tree.data.window is not None:
        return ()
    for name in OPTIONS:
        if getattr(tree.data, name) is not None or name in before:
            continue
        value = getattr(found.reading, name)
        setattr(tree.data, name, list(value) if isinstance(value, tuple) else value)
    return found.warnings


def recorded_data(folder: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """Options of ``data`` that the run in a folder began with."""
    if folder is None or not sorted_checkpoints(folder / CHECKPOINTS):
        return {}
    data = read_options(folder).get("data")
    return {name: data[name] for name in names if name in data} if isinstance(data, dict) else {}
