"""What of the machine is ours to use."""

import os
import tempfile
from pathlib import Path


def available_cores() -> int:
    """CPU cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def user_cache() -> Path:
    """The folder for what can be made again: ``convit_ssl`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Users without a home, or with one that they cannot write, as in many containers, have one
    among the temporary files.
    """
    # Other than pathlib's, this leaves the ~ of a user whom the system does not know.
    place = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    folder = place / "convit_ssl"
    if place.is_absolute() and (folder.exists() or _can_be_made(place)):
        return folder
    return Path(tempfile.gettempdir(), f"convit_ssl-{os.getuid()}")


def _can_be_made(folder: Path) -> bool:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
