"""How much memory this process may take: of the machine, its cgroup, its limits and its GPU."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

from convit_ssl.machine import cgroup_folders

MIB = 2.0**20
NEVER = 2.0**60  # bytes; cgroups v1 writes a number near 2^63 for "no limit"


@dataclass(frozen=True)
class Room:
    """What is free, in MiB; what this process holds already counts as free.

    Attributes:
        host_mib, host_limit: for all processes of this machine, and what sets that.
        process_mib, process_limit: for each process; None without a limit.
        device_mib: of one GPU; None without one.
    """

    host_mib: float
    host_limit: str
    process_mib: float | None = None
    process_limit: str = ""
    device_mib: float | None = None


def find_room(device: str, root: Path = Path("/")) -> Room:
    """Look around.

    Args:
        device: cpu or cuda.
        root: where /proc and /sys are.
    """
    own = _status(root, "VmRSS")
    free = _available(root) + own
    host, limit = free, "free on this machine"
    for left in _cgroups(root):
        if left + own < host:
            host, limit = left + own, "left by the limit of this cgroup, as of a container or job"
    process = None
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        process = (soft - _status(root, "VmSize") + own) / MIB
    gpu = None
    if device == "cuda":
        import torch

        gpu = min(
            torch.cuda.get_device_properties(number).total_memory
            for number in range(torch.cuda.device_count())
        )
    return Room(
        host / MIB, limit, process, "ulimit -v" if process is not None else "",
        None if gpu is None else gpu / MIB,
    )  # fmt: skip


def _available(root: Path) -> float:
    """Bytes that can be had without swapping, and swap."""
    found = _fields(root / "proc/meminfo")
    if "MemAvailable" not in found:
        return NEVER
    return 1024 * (found["MemAvailable"] + found.get("SwapFree", 0.0))


def _status(root: Path, name: str) -> float:
    """Bytes of this process."""
    return 1024 * _fields(root / "proc/self/status").get(name, 0.0)


def _fields(path: Path) -> dict[str, float]:
    """Lines such as ``MemFree: 123 kB``."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[1].isdigit():
                found[words[0].rstrip(":")] = float(words[1])
    return found


def _cgroups(root: Path) -> list[float]:
    """Bytes left in each memory cgroup that this process is in, v1 and v2."""
    left = []
    for folder, version in cgroup_folders("memory", root):
        names = ("memory.max", "memory.current")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_number(folder / name) for name in names)
        if limit is not None and used is not None and limit < NEVER:
            stat = _fields(folder / "memory.stat")
            cached = stat.get("inactive_file", stat.get("total_inactive_file", 0.0))
            left.append(max(limit - used + cached, 0.0))
    return left


def _number(path: Path) -> float | None:
    """Of a file that holds one; None for "max", or where there is none."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
