"""Importing fvcore's losses.

Broke: every process of a run, loader workers too, prints ``FutureWarning: torch.jit.script is
    deprecated``, which this project never calls.
Since: torch 2.14
Upstream: fvcore/nn/focal_loss.py:52
Goes when: fvcore compiles its losses with ``torch.compile``, or not at all.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def around(module: ModuleType) -> Iterator[None]:
    """Import ``module`` without the warning that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch.jit.script` is deprecated")
        yield
