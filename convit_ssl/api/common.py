"""What the functions of the interface share: images and weights by name, and codes of errors."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from convit_ssl.errors import UserError, coded

if TYPE_CHECKING:
    from convit_ssl.api.training import Run

__all__ = [
    "Data",
    "Weights",
    "arguments_of",
    "coded",
    "compared",
    "data_arguments",
    "weights_argument",
]

# A folder, or the name of a data set such as digits.
Data: TypeAlias = "str | os.PathLike[str]"
# A run, a run folder, a checkpoint, weights of another project, random:convit_nano, or pixels.
Weights: TypeAlias = "str | os.PathLike[str] | Run"


def data_arguments(data: Data) -> dict[str, str]:
    """``data`` and ``data_dir`` for a data set's name, or for a folder.

    Raises:
        UserError: there is neither.
    """
    from convit_ssl.data.listing.table_collections import TABLES
    from convit_ssl.data.loading.paths import is_url
    from convit_ssl.data.sources.builtin import SOURCES
    from convit_ssl.data.sources.registered import REGISTERED

    name = os.fspath(data)
    if name in REGISTERED:
        return {"data": name}
    if name in SOURCES and SOURCES[name].built_in:
        return {"data": name}
    folder = Path(name).expanduser()
    if is_url(name):
        return {"data": "shards" if ".tar" in name else "list", "data_dir": name}
    if folder.is_dir():
        return {"data": "folder", "data_dir": str(folder)}
    if folder.is_file():
        kind = "table" if name.lower().endswith(TABLES) else "list"
        return {"data": kind, "data_dir": str(folder)}
    built_in = ", ".join(key for key, source in SOURCES.items() if source.built_in)
    with coded("data"):
        raise UserError(f"{name}: there is no such folder, and no such data set ({built_in})")


def compared(references: bool | Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The options that ask for references: none, the plain ones, or frozen networks besides."""
    networks = [] if isinstance(references, bool) else [os.fspath(name) for name in references]
    return {"references": bool(references), "reference": networks}


def weights_argument(weights: Weights) -> str:
    """A path or a name, as the commands take it."""
    return os.fspath(getattr(weights, "folder", weights))


def arguments_of(command: str, required: list[str], given: dict[str, Any]) -> argparse.Namespace:
    """A command's options: its defaults, and what was given.

    Args:
        command: its name.
        required: arguments without a default.
        given: values by name; None leaves the default.

    Raises:
        TypeError: an option that the command does not have, as Python says of a function.
    """
    import convit_ssl.adapters  # noqa: F401  installs what VISSL and timm need

    module = importlib.import_module(f"convit_ssl.cli.{command}_command")
    parser = argparse.ArgumentParser(prog=command, add_help=False)
    module.add_arguments(parser)
    args = parser.parse_args(required)
    for name, value in given.items():
        if not hasattr(args, name):
            raise TypeError(f"{command}() got an unexpected keyword argument {name!r}")
        if value is not None:
            setattr(args, name, os.fspath(value) if isinstance(value, os.PathLike) else value)
    return args
