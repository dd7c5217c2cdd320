"""What of the machine is ours to use."""

import os


def available_cores() -> int:
    """CPU cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
