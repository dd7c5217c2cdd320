"""What a task of a SLURM job leaves behind, for the script that queues the job again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK = """
import atexit, os, signal, sys
from convit_ssl.engines.launch import command, slurm
from convit_ssl.data.loading.samples import DataGoneError

def leaves(arguments):
    raise {raised}

command.run_experiment = leaves
# srun ends the other tasks of a job that lost one.
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
slurm.Task([], sys.argv[1], sys.argv[1])()
"""


@pytest.mark.parametrize(
    ("raised", "code", "announced"),
    [
        ("SystemExit(140)", 140, True),  # SIGUSR2 while PyTorch was being imported
        ("SystemExit(143)", 143, False),
        ("DataGoneError('/data is gone')", 75, False),  # as where another process is lost
    ],
)
def test_codes(raised: str, code: int, announced: bool, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TASK.format(raised=raised), str(tmp_path)],
        env={**os.environ, "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "again_7").exists() == announced
    assert "Traceback" not in done.stderr
