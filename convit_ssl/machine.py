"""What of the machine is ours to use."""

import ctypes
import os
import tempfile
from pathlib import Path

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_NEVER = -1
_GIB = 1 << 30
_OF_THE_USER = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}


def available_cores() -> int:
    """CPU cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Let this process use freed memory again, instead of giving it back and asking for it anew.

    The C library of Linux (glibc) gives large buffers back at once. Asked for again, they come
    filled with zeros, page by page, which takes up to half of the time of training with large
    batches on a CPU, and a third of that of features. The price is memory: what the process holds
    between its peaks, and peaks up to 40 % higher. What the user set for malloc in the
    environment stands.

    Returns:
        Whether it was done: not on other systems.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _OF_THE_USER & os.environ.keys() or "mmap" in tunables or "trim" in tunables:
        return False
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError, ValueError):  # macOS, Windows, musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _GIB) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


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
