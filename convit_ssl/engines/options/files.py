"""Experiment files of the user's own: ``config=./mine.yaml`` and ``--config-dir DIR``.

Hydra finds files by group and name in a list of folders. A file that is named by its path is put
into such a folder for the time of composing, under a name that nothing else has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convit_ssl.engines.options.sources import check_defaults
from convit_ssl.errors import UserError
from convit_ssl.leftovers import temporary_folder
from convit_ssl.reading import read_yaml

FLAG = "--config-dir"
SUFFIXES = (".yaml", ".yml")
HEADER = "# @package"
# What a run folder's config.yaml has, and no experiment.
RECORDED = ("derived", "facts")


@dataclass(frozen=True)
class OwnFiles:
    """What a command line names of the user's own.

    Attributes:
        arguments: the command line, with names in place of paths and without ``--config-dir``.
        folders: to look for files in after all others.
        named: the folders that ``--config-dir`` names.
        experiment: name of an experiment file that gives itself none; None for shipped ones.
    """

    arguments: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()
    experiment: str | None = None


@contextlib.contextmanager
def own_files(arguments: Sequence[str], groups: Sequence[str]) -> Iterator[OwnFiles]:
    """The user's own files as Hydra can find them, while this lasts.

    Args:
        arguments: of the command line.
        groups: whose choices may be paths.

    Raises:
        UserError: a file or folder that is not there, or is no experiment.
    """
    words, named = _without_flag(arguments)
    with temporary_folder("convit_ssl-config-") as place:
        kept: list[str] = []
        folders: list[Path] = []
        experiment = None
        for number, word in enumerate(words):
            group, _, value = word.partition("=")
            path = _path(group.lstrip("+"), value, groups, named)
            if path is None:
                kept.append(word)
                continue
            content = _read(word, path)
            is_experiment = group.lstrip("+") == "config"
            if is_experiment:
                _check_experiment(word, content)
                experiment = None if "experiment" in content else path.stem
            name = f"file_{number}"
            staged = Path(place, str(number))
            _stage(path, staged / "named" / group.lstrip("+"), name, is_experiment)
            folders.append(staged / "named")
            # Files beside it are found by their names, as in a defaults list.
            (staged / "beside").mkdir(parents=True)
            (staged / "beside" / group.lstrip("+")).symlink_to(path.parent.absolute())
            folders.append(staged / "beside")
            kept.append(f"{group}={name}")
        yield OwnFiles(tuple(kept), (*folders, *named), tuple(named), experiment)


def _without_flag(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Arguments without ``--config-dir DIR``, and the folders that it names."""
    words: list[str] = []
    folders: list[Path] = []
    rest = iter(arguments)
    for word in rest:
        if word == FLAG or word.startswith(f"{FLAG}="):
            text = word.partition("=")[2] or next(rest, "")
            path = Path(text).expanduser().absolute()
            if not text or not path.is_dir():
                raise UserError(f"{FLAG} {text}: there is no such folder")
            folders.append(path)
        else:
            words.append(word)
    return words, folders


def _path(group: str, value: str, groups: Sequence[str], named: Sequence[Path]) -> Path | None:
    """The file that a group's choice names by its path; None for a name."""
    if group not in groups or not value:
        return None
    path = Path(value).expanduser()
    if value.startswith(("./", "../", "/", "~")):
        return path
    if value.endswith(SUFFIXES) and ("/" not in value or path.is_file()):
        return path  # VISSL's own are named by paths such as pretrain/swav/test.yaml
    # Of --config-dir, experiments may also lie in the folder itself.
    flat = [folder / f"{value}.yaml" for folder in named] if group == "config" else []
    grouped = any((folder / group / f"{value}.yaml").is_file() for folder in named)
    return next((path for path in flat if path.is_file() and not grouped), None)


def _read(word: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        beside = path.with_suffix(".yaml")
        near = f"; did you mean {beside}?" if beside != path and beside.is_file() else ""
        raise UserError(f"{word}: there is no file {path}{near}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{word}: {path} contains no options; expected lines such as `optim:`")
    check_defaults(content, path)
    return content


def _check_experiment(word: str, content: dict[str, Any]) -> None:
    if all(name in content for name in RECORDED):
        raise UserError(
            f"{word} is the resolved configuration of a run; give the file or the options that "
            f"the run was started with"
        )
    if "defaults" not in content and "config" not in content:
        raise UserError(
            f"{word} does not name the experiment it is based on; start it with\n"
            "defaults:\n  - convit_dino\n  - _self_"
        )


def _stage(path: Path, folder: Path, name: str, is_global: bool) -> None:
    """Copy a file under another name; an experiment's keys are those of the whole tree."""
    text = path.read_text(encoding="utf-8")
    if is_global and not any(line.startswith(HEADER) for line in text.splitlines()):
        text = f"{HEADER} _global_\n{text}"
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def refuse_hidden(overrides: Sequence[str], named: Sequence[Path], shipped: Path) -> None:
    """Refuse a file of ``--config-dir`` that a shipped one of the same name would hide.

    Raises:
        UserError: names both.
    """
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        for folder in named:
            file = os.path.join(group, f"{name}.yaml")
            if (folder / file).is_file() and (shipped / file).is_file():
                raise UserError(
                    f"{override} is in {folder} and also comes with this package; rename yours, "
                    f"or give its path: {group}={folder / file}"
                )
