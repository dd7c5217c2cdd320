"""A few of the random kills of chaos.py; fifty of them are in results/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--kills", "4", "--epochs", "30", "--root", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["equal"] and report["exit_code"] == 0
    assert report["began_elsewhere"] == 0
    assert report["stray_files"] == []
    assert report["most_files"] <= 12  # three checkpoints and what was being written
