"""What a run takes, as `tools/memory_estimate.py` measures it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "memory_estimate.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    found = importlib.util.spec_from_file_location("memory_estimate", TOOL)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_sample_taken_while_a_process_ends_is_no_peak(tool: ModuleType) -> None:
    assert tool.lasting_peak([100.0, 110.0, 900.0, 120.0, 115.0]) == 120.0
    assert tool.lasting_peak([100.0, 300.0, 310.0, 90.0]) == 300.0
    assert tool.lasting_peak([]) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_that_processes_share_count_once(tool: ModuleType) -> None:
    """A parent of 100 MiB with two children that were forked from it holds 100 MiB, not 300."""
    code = (
        "import os, sys\n"
        "held = bytearray(b'x') * (100 << 20)\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        sys.stdin.read()\n"
        "        os._exit(0)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        family = tool._family(process.pid)
        assert len(family) == 3
        held = tool._held(family, [process.pid]) / 1024
        process.communicate()
    assert 100 < held < 140
