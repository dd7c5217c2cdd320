"""Is the run folder still the one that training began in, and what does it really hold?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

from convit_ssl.engines.checkpoints.files import sorted_checkpoints
from convit_ssl.runs import RunFolder

CHECK_EVERY = 1.0  # seconds
# A network file system may be away for a moment.
CONFIRM_AFTER = 2.0  # seconds
_UNKNOWN = (-1, -1)


class FolderGuard:
    """Notices a run folder that was moved, deleted or replaced while training writes to it.

    Args:
        folder: the run folder, locked by this process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._identity = _identity(folder)
        self._lock = _lock_state(folder)
        self._descriptor = os.open(folder, os.O_RDONLY)
        self._checked_at = float("-inf")
        self._missing_since: float | None = None

    def gone(self, now: float | None = None) -> bool:
        """Whether the folder has been away for some seconds. Costs next to nothing."""
        now = time.monotonic() if now is None else now
        if now - self._checked_at >= CHECK_EVERY:
            self._checked_at = now
            if self._is_there():
                self._missing_since = None
            elif self._missing_since is None:
                self._missing_since = now
        return self._missing_since is not None and now - self._missing_since >= CONFIRM_AFTER

    def gone_now(self) -> bool:
        """Whether the folder is away at this moment."""
        return not self._is_there()

    def describe(self) -> str:
        """One message: what happened, and how to go on."""
        place = _place(self._descriptor)
        if place is None:
            return (
                f"the run folder {self.folder} was moved or deleted while training wrote to it, "
                "so training has stopped. If it was moved, move it back or set run.dir to where "
                "it is, and run the same command again"
            )
        if not place or place.endswith(" (deleted)") or not Path(place).is_dir():
            return (
                f"the run folder {self.folder} was deleted while training wrote to it, so "
                "training has stopped; nothing of the run is left on disk"
            )
        newest = newest_on_disk(RunFolder(place).checkpoints)
        holds = f"the newest checkpoint there is {newest.name}" if newest else "without checkpoint"
        return (
            f"the run folder {self.folder} was moved to {place} while training wrote to it, so "
            f"training has stopped; {holds}. Move it back, or add run.dir={place}, and run the "
            "same command again"
        )

    def close(self) -> None:
        """Let go of the folder."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _is_there(self) -> bool:
        found = _identity(self.folder)
        if found is None or found in (self._identity, _UNKNOWN):
            return found is not None
        # Some network file systems number their folders anew; what the lock says stays.
        return self._lock is not None and _lock_state(self.folder) == self._lock


def newest_on_disk(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written to its end. Reads none of them.

    A checkpoint gets its name only once it is whole, its checksum and itself on the disk.
    """
    with contextlib.suppress(OSError):
        for path in sorted_checkpoints(checkpoints, newest_first=True):
            if path.with_suffix(".sha256").is_file():
                return path
    return None


def forget(folder: Path) -> None:
    """Delete what an earlier run left in a folder."""
    run = RunFolder(folder)
    for path in (run.checkpoints, *run.outcome):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def resume_words(checkpoints: Path) -> str:
    """A sentence on what the same command does next."""
    newest = newest_on_disk(checkpoints)
    if newest is None:
        return "No checkpoint has been written yet, so the same command starts from the beginning"
    return f"The same command resumes from {newest.name}"


def _place(descriptor: int) -> str | None:
    """Where an open folder is now; None where the system does not tell."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        pass
    if not hasattr(fcntl, "F_GETPATH"):
        return None
    try:  # macOS
        found = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))
    except OSError:  # it is deleted
        return ""
    return os.fsdecode(found.rstrip(b"\0"))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # a network that does not answer says nothing of the folder
        return _UNKNOWN
    return state.st_dev, state.st_ino


def _lock_state(folder: Path) -> tuple[int, int] | None:
    """When the lock's holder was written, and its length; None without a lock.

    The file is not opened: a process that closes any descriptor of it gives its lock away
    (fcntl(2), record locks).
    """
    try:
        state = os.stat(RunFolder(folder).lock)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size
