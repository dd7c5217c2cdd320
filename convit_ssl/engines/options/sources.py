"""Which folders an experiment is composed from, and which of its files are the user's own.

The experiments of this project come first. Files in ``configs/`` of the current folder are found
by VISSL's convention, but only under names that neither this project nor VISSL uses: the folder
one stands in, which may be another clone, never replaces a shipped file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf._utils import get_yaml_loader

from convit_ssl.engines.options.words import dotted_keys
from convit_ssl.errors import UserError
from convit_ssl.reading import check_yaml

OWN_FOLDER = "configs"  # in the current folder
_OWN = "user"
_SHIPPED = "convit_ssl"
# What VISSL's plugin puts in front of everything else.
_FROM_CURRENT_FOLDER = "file://configs"


def order_sources(experiments: Path, folders: Sequence[Path] = ()) -> None:
    """Reorder Hydra's search path: this project, VISSL, then the user's own folders.

    Call it after Hydra was initialised and before anything is composed.

    Args:
        experiments: the folder of the shipped experiments.
        folders: that the command line names; ``configs/`` of the current folder comes after them.
    """
    loader = _loader()
    path = loader.config_search_path.get_path()
    path[:] = [element for element in path if element.path != _FROM_CURRENT_FOLDER]
    path.insert(0, SearchPathElement(_SHIPPED, f"file://{experiments}"))
    # The last one is Hydra's own schema.
    for folder in (*folders, Path(OWN_FOLDER).absolute()):
        path.insert(len(path) - 1, SearchPathElement(_OWN, f"file://{folder}"))
    loader.repository.initialize_sources(loader.config_search_path)


def check_own_files(overrides: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Hold the user's own files that are about to be composed to the limits of all readers.

    Args:
        overrides: what the experiment is composed from.
        folders: of the user's own, besides ``configs/`` of the current folder.

    Raises:
        UserError: one is a pipe or a device, or stands for more values than any options have.
    """
    wanted = [
        (folder, *word.lstrip("+~").partition("=")[::2])
        for word in overrides
        for folder in (*folders, Path(OWN_FOLDER))
    ]
    seen: set[Path] = set()
    while wanted:
        folder, group, name = wanted.pop()
        if not re.fullmatch(r"[\w./-]+", f"{group}/{name}") or ".." in f"{group}/{name}":
            continue
        path = folder / group.strip("/") / f"{name.strip('/').removesuffix('.yaml')}.yaml"
        if path in seen or not path.exists():
            continue
        seen.add(path)
        content = check_yaml(path)
        check_defaults(content, path)
        for entry in _defaults(content):
            if isinstance(entry, dict):
                named = [(str(key).split()[-1], str(value)) for key, value in entry.items() if key]
            else:
                named = [("" if str(entry).startswith("/") else group, str(entry))]
            wanted += [(place, *pair) for place in (*folders, Path(OWN_FOLDER)) for pair in named]


def check_defaults(content: Any, path: Path) -> None:
    """Refuse a defaults list where a group is not text: Hydra ends there without a message.

    Args:
        content: of a YAML file.
        path: of the file.

    Raises:
        UserError: there is such an entry.
    """
    for entry in _defaults(content):
        other = [key for key in entry if not _is_text(key)] if isinstance(entry, dict) else ()
        if other:
            raise UserError(
                f"{path}: its defaults list names the group {other[0]!r}, which is not text; "
                "write entries such as `- /trunk: convit_nano`"
            )


def _is_text(key: Any) -> bool:
    """As OmegaConf reads it, for which 1e9 is a number; it is text in YAML 1.1."""
    if not isinstance(key, str) or not key.lstrip("+-.")[:1].isdigit():
        return isinstance(key, str)
    return isinstance(yaml.load(key, get_yaml_loader()), str)


def _defaults(content: Any) -> list[Any]:
    listed = content.get("defaults") if isinstance(content, dict) else None
    return listed if isinstance(listed, list) else []


def keys_of_own_files(overrides: Sequence[str]) -> frozenset[str]:
    """Dotted keys that the user's own files set, of those that are really composed.

    Args:
        overrides: what the experiment is composed from, as for Hydra's `compose`.
    """
    loader = _loader()
    path = loader.config_search_path.get_path()
    places = [str(element.path).removeprefix("file://") for element in path if _is_own(element)]
    # What follows composes the tree once more, which takes a fifth of a second.
    if not any(Path(place).is_dir() for place in places):
        return frozenset()
    defaults = loader.compute_defaults_list("defaults", list(overrides), RunMode.RUN).defaults
    keys: set[str] = set()
    for default in defaults:
        if default.config_path is None:
            continue
        found: Any = loader.repository.load_config(default.config_path)
        if found is not None and found.provider == _OWN:
            prefix = f"{default.package}." if default.package else ""
            keys |= {f"{prefix}{key}" for key in dotted_keys(found.config)}
    return frozenset(key for key in keys if not key.startswith("defaults"))


def _is_own(element: SearchPathElement) -> bool:
    return bool(element.provider == _OWN)


def _loader() -> ConfigLoaderImpl:
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    return loader
