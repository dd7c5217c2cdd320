"""How many CPU threads a training process uses, and who decides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# In PyTorch's own order: the first that is set counts.
VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Threads:
    """A number of threads.

    Attributes:
        count: of each process.
        why: what set it, in words.
        given: by the user, so that nothing changes it.
    """

    count: int
    why: str
    given: bool


def choose_threads(
    given: int | None,
    device: str,
    processes: int,
    cores: int,
    limit: str,
    environment: Mapping[str, str] = os.environ,
) -> Threads:
    """``run.threads``, else the environment, else this process's share of the cores.

    Args:
        given: ``run.threads``.
        device: cpu or cuda; beside a GPU half of the cores are left to the loader workers.
        processes: on this machine.
        cores: that all of them may use.
        limit: what sets that number, in words.
        environment: the variables.
    """
    if given:
        return Threads(int(given), "run.threads", True)
    for name in VARIABLES:
        # OMP_NUM_THREADS may be a list, one number for each level of nested parallelism.
        first = environment.get(name, "").split(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            why = f"{name}={environment[name]}"
            if first == "1" and "TORCHELASTIC_RUN_ID" in environment:
                why += ", which torchrun sets by default; run.threads=N overrides it"
            return Threads(int(first), why, True)
    share = max(cores // processes, 1)
    if device != "cpu":
        return Threads(max(share // 2, 1), limit, False)
    return Threads(share, limit if processes == 1 else f"{limit}, shared out", False)
