"""Temporary folders that a killed process left behind, told from those that are in use.

A folder in use holds a file that its process has locked. The lock goes with the process, however
it ends, and no child inherits it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_ALIVE = ".alive"
_own: set[Path] = set()  # of this process, whose locks do not hold against itself
_DAY = 86400.0  # seconds after which a folder without that file is abandoned


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder in `parent` for as long as the block runs.

    Folders of the same prefix whose process is gone are deleted first. The block may move the
    folder away, after `release`.

    Raises:
        OSError: `parent` cannot be written.
    """
    remove_abandoned(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _own.add(folder)
    file = open(folder / _ALIVE, "w")  # noqa: SIM115 open for as long as the block runs
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(str(os.getpid()))  # after the lock: an empty file is not looked at
        file.flush()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _own.discard(folder)
        file.close()


def temporary_folder(prefix: str) -> contextlib.AbstractContextManager[Path]:
    """`working_folder` where the system keeps temporary files.

    Unlike `tempfile.TemporaryDirectory`, what a killed process left there goes with the next.
    """
    return working_folder(Path(tempfile.gettempdir()), prefix)


def release(folder: Path) -> None:
    """Take the mark out of a folder that is complete."""
    (folder / _ALIVE).unlink(missing_ok=True)


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Delete the temporary folders of processes that are gone."""
    for folder in parent.glob(f"{_escaped(prefix)}*"):
        with contextlib.suppress(OSError):
            if folder in _own or folder.is_symlink() or not folder.is_dir():
                continue  # opening and closing the mark of one's own would drop its lock
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        with open(folder / _ALIVE, "r+") as file:
            return bool(file.read(1)) and _lockable(file)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > _DAY


def _lockable(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
