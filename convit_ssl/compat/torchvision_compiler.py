"""torchvision without PyTorch's compiler, until something is compiled.

Broke: ``import torchvision`` imports ``torch._dynamo``, and with it a thousand modules: a second
    before every command, for an operator of object detection.
Since: torchvision 0.22
Upstream: torchvision/ops/roi_align.py:7
Goes when: torchvision imports it in the function that asks it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

COMPILER = "torch._dynamo"
ASKED = "torch._dynamo.utils"


@contextlib.contextmanager
def around(module: ModuleType) -> Iterator[None]:
    """Import ``module`` with a function that imports the compiler when it is called.

    Does nothing if the compiler is loaded already.
    """
    if COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(ASKED)
    vars(stand_in)["is_compile_supported"] = _is_compile_supported
    sys.modules[ASKED] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(ASKED) is stand_in:
            del sys.modules[ASKED]


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
