"""The steps of a real training run never wait for the device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.quick_run import ROOT, Run

EPOCHS = 4
STEPS = 10 * EPOCHS
# Once a step, and of no device: VISSL reads the sides of a batch's crops from a tensor that it
# makes on the CPU; DINO's loss asks whether its gradient is 1 on a CPU alone.
ON_THE_CPU = {"base_ssl_model.py:multi_res_input_forward": 2, "cross_view.py:backward": 1}


@pytest.mark.parametrize("method", ["dino", "simclr"])
def test_reads_of_a_run(method: str, tmp_path: Path) -> None:
    run = Run(tmp_path, f"optim.epochs={EPOCHS}", "run.processes=1")
    arguments = run.arguments
    if method != "dino":
        others = [a for a in arguments if not a.startswith(("config=", "method."))]
        arguments = [f"config=convit_{method}", *others]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/integration/waiting_run.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    reads = json.loads(done.stdout.splitlines()[-1])
    assert reads["progress.py:_read"] > 0  # it counts
    for line, count in reads.items():
        # What is left is read once an epoch, or every ten steps.
        assert count <= ON_THE_CPU.get(line, 0) * STEPS or count < STEPS, (line, reads)
