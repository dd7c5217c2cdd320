"""What this process may use of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from convit_ssl.errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_NEVER = -1
_GIB = 1 << 30
_OF_THE_USER = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}


# What decides how long an OpenMP thread spins before it sleeps.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}  # spins (GNU), ms (LLVM, Intel)


START_METHOD = "CONVIT_SSL_START_METHOD"


def start_method() -> str:
    """How loader workers start: fork on Linux, where it is quick, spawn elsewhere.

    ``CONVIT_SSL_START_METHOD`` chooses another one.

    Raises:
        UserError: it names none that this system has.
    """
    import multiprocessing

    asked = os.environ.get(START_METHOD)
    methods = multiprocessing.get_all_start_methods()
    if asked:
        if asked not in methods:
            raise UserError(f"{START_METHOD}={asked}: choose from {', '.join(methods)}")
        return asked
    return "fork" if sys.platform == "linux" else "spawn"


def peak_resident_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)  # bytes there, KiB elsewhere


def available_cores(root: Path = Path("/")) -> int:
    """CPU cores that this process may use, at least 1. See `core_limit`."""
    return core_limit(root)[0]


def core_limit(root: Path = Path("/")) -> tuple[int, str]:
    """CPU cores that this process may use, and what sets that number.

    The smallest of the machine's cores, the CPU affinity (``taskset``, SLURM, cpusets), and the
    CPU time that the cgroups of a container or job allow, in whole cores.

    Args:
        root: where /proc and /sys are.

    Returns:
        The number, at least 1, and the reason in words.
    """
    machine = os.cpu_count() or 1
    cores, why = machine, "all cores"
    if hasattr(os, "sched_getaffinity") and (mask := len(os.sched_getaffinity(0))) < cores:
        cores, why = mask, f"the CPU affinity, of {machine} cores"
    for quota in _cpu_quotas(root):
        if quota < cores:
            cores = max(int(quota), 1)
            why = f"the cgroup's CPU limit of {quota:g}, of {machine} cores"
    return cores, why


def _cpu_quotas(root: Path) -> Iterator[float]:
    """CPU time over wall time that each cgroup of this process allows, where it has a limit."""
    for folder, version in cgroup_folders("cpu", root):
        with contextlib.suppress(OSError, ValueError):
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota != "max" and float(quota) > 0 and float(period) > 0:
                yield float(quota) / float(period)


def cgroup_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The folders of the cgroups that this process is in, innermost first, with their version.

    Args:
        controller: such as cpu or memory.
        root: where /proc and /sys are.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            base, version = root / "sys/fs/cgroup" / controller, 1
            if not base.is_dir():  # mounted under the names of all its controllers
                base = root / "sys/fs/cgroup" / controllers
        else:
            continue
        # In a container the path may be the host's, and the mount its own cgroup.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth]), version


def wait_briefly() -> bool:
    """Let OpenMP's threads sleep soon after their part of an operation, instead of spinning.

    Threads wait for each other after every operation. OpenMP spins for milliseconds first, which
    on a busy machine takes the very core that the thread waited for needs: two threads then take
    several times as long as one. A short spin costs nothing measurable on a quiet machine.

    OpenMP reads the environment when it is loaded, so call this before PyTorch is imported. What
    the user set (``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``, ``KMP_BLOCKTIME``, ``KMP_LIBRARY``)
    stands.

    Returns:
        Whether the environment was changed.
    """
    if any(name in os.environ for name in WAITING):
        return False
    os.environ.update(_SHORT_SPIN)
    return True


def threads_of_one_core(count: int) -> ThreadPoolExecutor:
    """Threads for work of their own: the operations of PyTorch in each take one core.

    The setting of this thread, and of threads that others start later, stays what it is.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "share", torch.set_num_threads, (1,))
    list(pool.map(lambda _: torch.get_num_threads(), range(count)))
    torch.set_num_threads(before)  # the number that later threads begin with is of the process
    return pool


def keep_freed_memory() -> bool:
    """Let this process use freed memory again, instead of giving it back and asking for it anew.

    The C library of Linux (glibc) gives large buffers back at once. Asked for again, they come
    filled with zeros, page by page, which takes up to half of the time of training with large
    batches on a CPU, and a third of that of features. The price is memory: what the process holds
    between its peaks, and peaks up to 40 % higher. `release_freed_memory` gives it back where the
    work changes. All threads share one heap, since each of several would hold peaks of its own.
    What the user set for malloc in the environment stands.

    Returns:
        Whether it was done: not on other systems.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _OF_THE_USER & os.environ.keys() or "mmap" in tunables or "trim" in tunables:
        return False
    glibc = _glibc()
    if glibc is None:
        return False
    if "MALLOC_ARENA_MAX" not in os.environ and "arena" not in tunables:
        glibc.mallopt(_M_ARENA_MAX, 1)
    kept = glibc.mallopt(_M_MMAP_THRESHOLD, _GIB) and glibc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    return bool(kept)


def release_freed_memory() -> bool:
    """Give freed memory back to the system, once: before work that needs other sizes.

    What comes next pays for new pages, about half a second for each GiB.

    Returns:
        Whether there was any: not on other systems than Linux with glibc.
    """
    glibc = _glibc()
    return glibc is not None and bool(glibc.malloc_trim(0))


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is GNU's: not on macOS, Windows and musl."""
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
        library = ctypes.CDLL(None)
        library.mallopt, library.malloc_trim  # noqa: B018 raises where there is none
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return library


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
