"""Loader workers in a container with little shared memory, as Docker's are by default."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.quick_run import Run

SMALL = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" "$@"'


def with_little(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that finds 64 KiB of shared memory."""
    inside = ["unshare", "--mount", "sh", "-c", SMALL]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("mounting needs more rights than these tests have")
    return subprocess.run(
        [*inside, *command], capture_output=True, text=True, cwd=folder, timeout=400
    )


@pytest.mark.slow
def test_training_says_what_to_do_and_does_without(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=1", "optim.batch_size=500")
    done = with_little([*run.command, "data.workers=3"], tmp_path)
    assert done.returncode == 2, done.stderr
    assert "1 x 3 loader workers may keep" in done.stderr
    assert "--shm-size" in done.stderr and done.stderr.rstrip().endswith("data.workers=0")
    assert "Traceback" not in done.stderr
    done = with_little([*run.command, "data.workers=0"], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_features_are_read_by_as_many_workers_as_there_is_room_for(tmp_path: Path) -> None:
    """Which is none here."""
    tool = str(Path(sys.executable).with_name("convit-ssl"))
    command = [
        tool, "knn", "random:convit_nano", "--img-size", "32", "--data", "digits", "--workers", "2",
        "--cache", str(tmp_path / "cache"), "--device", "cpu",
    ]  # fmt: skip
    done = with_little(command, tmp_path)
    assert done.returncode == 0, done.stderr
