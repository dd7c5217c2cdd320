"""Checkpoints that are whole or absent, and finding the last good one.

A checkpoint is written to a temporary file in its folder, flushed to the disk, and renamed; a
``.sha256`` beside it, there before it, says what its bytes are. `last.torch` is a relative link to
the newest, so that the folder can be moved.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convit_ssl.checksums import digest, not_files, numbered_checkpoints, stated_damage
from convit_ssl.errors import UserError
from convit_ssl.reading import printable, utf8_place

FORMAT = 1
CHECKPOINTS = "checkpoints"  # folder of a run
LAST = "last.torch"
BEST = "best.torch"
_NAME = re.compile(r"checkpoint_e(\d+)_s(\d+)\.torch")


@dataclass(frozen=True)
class Found:
    """A checkpoint that can be resumed from.

    Attributes:
        path: the file.
        skipped: newer files that are damaged, with the reason.
    """

    path: Path
    skipped: list[str]


def checkpoint_name(epoch: int, step: int) -> str:
    """File name after `epoch` whole epochs and `step` optimiser steps in all.

    Steps are those that were taken, so that a later checkpoint always has more of them; another
    batch than a run began with numbers the steps of its epochs otherwise.
    """
    return f"checkpoint_e{epoch:04d}_s{step:08d}.torch"


def write_checkpoint(folder: Path, name: str, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint whole, point `last.torch` at it, and drop those beyond `keep`.

    Raises:
        OSError: the disk is full, read-only or gone, or the run folder that `folder` lies in is;
            what was there before is untouched.
    """
    folder.mkdir(exist_ok=True)  # not its parents: a run folder that was moved stays away
    path = folder / name
    with _whole_file(path) as temporary:
        with open(temporary, "wb") as file:
            torch.save(state, file)
        # First, so that a checkpoint under its own name can always be checked.
        _write_text(path.with_suffix(".sha256"), f"{digest(temporary)}  {name}\n")
    point_to(folder / LAST, name)
    _prune(folder, keep)
    return path


def find_checkpoint(folder: Path) -> Found | None:
    """The newest checkpoint whose bytes are what they were when it was written.

    Raises:
        UserError: there are checkpoints, and none is whole; or a folder has the name of one.
    """
    for path in folder.glob("checkpoint_*.torch"):
        if _NAME.fullmatch(path.name) and path.is_dir():
            raise UserError(
                f"{path} is a folder, and training would write a checkpoint of that name; move it "
                "away"
            )
    skipped = not_files(folder)
    for path in sorted_checkpoints(folder, newest_first=True):
        reason = stated_damage(path)
        if reason is None:
            return Found(path, skipped)
        skipped.append(f"{path.name}: {reason}")
    if skipped:
        raise UserError(
            f"every checkpoint in {folder} is damaged ({'; '.join(skipped)}). Copy an undamaged "
            f"one there with its .sha256 file, or start over with run.overwrite=true"
        )
    return None


def epochs_done(folder: Path) -> int:
    """Whole epochs behind the newest checkpoint by its name; 0 without one. Reads no file."""
    newest = sorted_checkpoints(folder)[-1:]
    match = _NAME.fullmatch(newest[0].name) if newest else None
    return int(match[1]) if match else 0


def sorted_checkpoints(folder: Path, newest_first: bool = False) -> list[Path]:
    """The checkpoints of a folder by step; regular files alone."""
    found = [path for path in numbered_checkpoints(folder) if _NAME.fullmatch(path.name)]
    return found[::-1] if newest_first else found


def read_state(path: Path, mmap: bool = False) -> dict[str, Any]:
    """The state in a checkpoint of ours, on the CPU; runs no code of the file.

    Raises:
        UserError: it is something else, though its checksum may be right.
    """
    try:
        with utf8_place(path) as place:
            state = torch.load(place, map_location="cpu", weights_only=True, mmap=mmap)
        missing = [key for key in ("classy_state_dict", "convit_ssl") if key not in state]
        missing += [key for key in ("config", "ranks") if key not in state["convit_ssl"]]
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = printable(str(error).strip().partition("\n")[0], 160) or type(error).__name__
        raise _no_state(path, f"cannot be read ({reason})") from None
    if missing:
        raise _no_state(path, f"lacks {', '.join(missing)}")
    return dict(state)


def _no_state(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is not a checkpoint of a run: it {what}. Delete it to resume from the previous "
        f"one, or start over with run.overwrite=true"
    )


def remove_leftovers(folder: Path) -> None:
    """Delete what a process left that was killed while writing or deleting."""
    if not folder.is_dir():
        return
    for path in folder.glob(".*.partial-*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("checkpoint_*.sha256"):
        if not path.with_suffix(".torch").exists():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place once it is written and on the disk."""
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    with _whole_file(path) as temporary:
        temporary.write_text(text)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_to(link: Path, name: str) -> None:
    """Make a relative link, whole or not at all."""
    temporary = link.with_name(f".{link.name}.partial-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.symlink(name, temporary)
        os.replace(temporary, link)
        _sync_folder(link.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _prune(folder: Path, keep: int) -> None:
    linked = {os.readlink(link) for name in (LAST, BEST) if (link := folder / name).is_symlink()}
    for path in sorted_checkpoints(folder)[: -max(keep, 1)]:
        if path.name not in linked:
            path.unlink(missing_ok=True)
            path.with_suffix(".sha256").unlink(missing_ok=True)
