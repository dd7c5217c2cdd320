"""torchvision is imported without PyTorch's compiler, and its operator still asks it."""

from __future__ import annotations

import subprocess
import sys

import pytest

POOL = """
import sys
{before}
import torch, torchvision
print("torch._dynamo" in sys.modules)
from torchvision.ops.roi_align import is_compile_supported
print(is_compile_supported("cpu"), "torch._dynamo.utils" in sys.modules)
"""
OURS = "import convit_ssl.compat as compat; compat.install()"


@pytest.mark.parametrize(
    ("before", "loaded"),
    [("", True), (OURS, False), (f"import torch._dynamo\n{OURS}", True)],
    ids=["torchvision alone", "with the shim", "loaded before"],
)
def test_the_compiler_is_loaded_when_it_is_asked(before: str, loaded: bool) -> None:
    code = POOL.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == f"{loaded}\nTrue True\n"
