"""Data sets of the user's own, by the name under which a plugin registered them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.names import some
from convit_ssl.errors import UserError

# Image file and class name; None for an image without a label.
Item: TypeAlias = "tuple[str | os.PathLike[str], str | None]"
Lister: TypeAlias = "Callable[[str | None, str], Iterable[Item]]"

REGISTERED: dict[str, Lister] = {}


def register_dataset(name: str) -> Callable[[Lister], Lister]:
    """Decorator for a function that lists the images of a data set, called ``data=name``.

    The function takes ``data_dir`` (None where it was not given) and the split, ``train`` or
    ``val``, and gives pairs of an image file and its class; None for the class where there is none,
    and nothing at all for a split that there is not.

    Raises:
        UserError: the name is taken by a data set of this package.
    """
    from convit_ssl.data.sources.builtin import SOURCES

    if name in SOURCES:
        raise UserError(f"register_dataset({name!r}): a built-in data set already has this name")

    def register(function: Lister) -> Lister:
        REGISTERED[name] = function
        return function

    return register


def registered_listing(name: str, data_dir: str | os.PathLike[str] | None, split: str) -> Listing:
    """The images of a split of a registered data set, in the order in which they are listed.

    Raises:
        UserError: there are none, a file is not there, or val has classes that train lacks.
    """
    where = None if data_dir is None else os.fspath(data_dir)
    items = [(os.path.abspath(path), label) for path, label in REGISTERED[name](where, split)]
    if not items:
        raise UserError(f"data={name} lists no images for {split}")
    missing = [path for path, _ in items if not os.path.isfile(path)]
    if missing:
        raise UserError(f"data={name}: {len(missing)} files do not exist: {some(missing)}")
    trained = items if split == "train" else list(REGISTERED[name](where, "train"))
    classes = sorted({label for _, label in trained if label is not None})
    strange = {label for _, label in items if label is not None} - set(classes)
    if strange:
        raise UserError(
            f"data={name}: {split} has classes that train lacks: {some(sorted(strange))}"
        )
    root = os.path.commonpath([os.path.dirname(path) for path, _ in items])
    numbers = {label: number for number, label in enumerate(classes)}
    return Listing(
        Path(root),
        [os.path.relpath(path, root) for path, _ in items],
        [-1 if label is None else numbers[label] for _, label in items],
        classes,
    )
