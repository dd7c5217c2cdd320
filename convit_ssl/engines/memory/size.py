"""What a run takes of memory, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

# Of a process with everything imported and no model, as measured on Linux. A CUDA build of PyTorch
# loads its libraries also where no GPU is used.
BASE_MIB = 290.0 if torch.version.cuda is None else 730.0
COMPILER_MIB = 150.0  # of PyTorch's compiler, which is imported where a run compiles


@dataclass(frozen=True)
class Memory:
    """MiB that a process of a run takes at its peak, by what takes it.

    Attributes:
        parts: name of a part -> MiB in the memory of `device`.
        host: MiB in the machine's memory: all of it on a CPU, the process itself beside a GPU.
        workers: MiB of this process's loader workers and its share of the launcher, beside `host`.
        device: cpu or cuda.
    """

    parts: Mapping[str, float]
    host: float
    workers: float
    device: str

    @property
    def device_mib(self) -> float:
        """On the device."""
        return sum(self.parts.values())

    def describe(self) -> str:
        """For the screen: the sum, and the largest parts."""
        total = self.device_mib + (BASE_MIB if self.device == "cpu" else 0.0)
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        shown = ", ".join(f"{name} {gib(mib)}" for name, mib in largest if mib >= 0.02 * total)
        return f"about {gib(total)} a process" + (f" ({shown})" if shown else "")


def gib(mib: float) -> str:
    """MiB in words."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
