"""A disk that fills up under a run: training goes on, says so, and recovers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick_run import Run

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room but a page."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(bytes(max(room.f_bavail * room.f_frsize - 4096, 0)))
    return filler


@pytest.mark.slow
def test_training_outlives_a_full_disk(small_disk: Path) -> None:
    run = Run(small_disk, "optim.epochs=2000", "run.checkpoint_minutes=0.02")
    run.output = small_disk.parent / "output.txt"
    run.start()
    try:
        run.until(lambda: len(run.saved()) >= 2)
        filler = fill(small_disk)
        run.until(lambda: "could not be written" in run.text())
        before = run.steps()
        run.until(run.reached(before + 10))
        filler.unlink()
        run.until(lambda: "was written, after" in run.text())
        run.signal(signal.SIGTERM)
        assert run.wait() == 128 + signal.SIGTERM, run.text()
    finally:
        run.end()
    assert "MiB are free in" in run.text() and "make room there" in run.text()
    assert "Traceback" not in run.text() and "Logging error" not in run.text()
    assert run.stray_files() == []


@pytest.mark.slow
def test_the_last_checkpoint_waits_for_room(small_disk: Path) -> None:
    run = Run(small_disk, "optim.epochs=100", "run.checkpoint_minutes=60")
    run.output = small_disk.parent / "output.txt"
    run.start()
    try:
        run.until(run.reached(5))
        filler = fill(small_disk)
        run.until(lambda: "this one is tried soon" in run.text())
        assert not (run.folder / "result.json").exists()
        filler.unlink()
        assert run.wait() == 0, run.text()
    finally:
        run.end()
    assert run.saved()[-1] == 1000
    assert (run.folder / "result.json").exists()
    assert "Traceback" not in run.text()


@pytest.mark.slow
def test_too_little_room_is_known_before_the_first_step(small_disk: Path) -> None:
    with open(small_disk / "filler", "wb") as file:
        file.write(bytes(11 * MIB))
    run = Run(small_disk, "optim.epochs=2", "run.keep_checkpoints=9")
    run.output = small_disk.parent / "output.txt"
    assert run.complete() == 2, run.text()
    assert f"before the first step: node {os.uname().nodename} (rank 0):" in run.text()
    assert "MiB are free for checkpoints" in run.text()
