"""What `torch.compile` has to be told for crops of several sizes, and whether it works at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TOOLS = {"cpu": "a C++ compiler (g++)", "cuda": "a C compiler (gcc) and Python's headers"}


def compile_options() -> dict[str, Any]:
    """Options for ``torch.compile(model, options=...)``.

    From the second size of images on, sizes are symbols. PyTorch analyses the memory accesses of
    a GPU's kernels, and with symbols that stopped on an assertion (seen with 2.11).
    """
    import torch._inductor.config  # not at the top: it takes a second

    known = hasattr(torch._inductor.config.triton, "coalesce_tiling_analysis")
    return {"triton.coalesce_tiling_analysis": False} if known else {}


def why_no_compiler(device: torch.device) -> str:
    """Why `torch.compile` does not work for a device, tried on two numbers; "" where it does."""
    try:
        torch.compile(_twice, options=compile_options())(torch.ones(2, device=device))
    except Exception as error:  # of any kind: what fails are other people's programs
        words = (str(error).splitlines() or [""])[0]
        needed = TOOLS.get(device.type, "its tools")
        return f"torch.compile does not work here ({words}). It needs {needed}; install that"
    return ""


def _twice(x: Tensor) -> Tensor:
    return 2 * x
