"""The run folder is moved, deleted or made read-only under a run: one message, and no ghost."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick_run import Run

LONG = ("optim.epochs=20000", "run.checkpoint_minutes=0.02")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def start(root: Path, output: Path, *more: str) -> Run:
    run = Run(root, *LONG, *more)
    run.output = output
    run.start()
    run.until(lambda: len(run.saved()) >= 2)
    return run


def delete(folder: Path) -> None:
    """Again where the run writes a file between listing a folder and removing it."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            return
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("what", ["moved", "deleted"])
def test_a_run_folder_that_goes_away(what: str, processes: int, tmp_path: Path) -> None:
    run = start(tmp_path / "root", tmp_path / "output.txt", f"run.processes={processes}")
    moved = tmp_path / "root" / "elsewhere"
    try:
        if what == "moved":
            run.folder.rename(moved)
        else:
            delete(run.folder)
        assert run.wait(120) == 2, run.text()
    finally:
        run.end()
    assert not run.folder.exists()
    assert run.text().count(f"was {what}") == 1 and "Traceback" not in run.text()
    if what == "moved":
        assert f"run.dir={moved}" in run.text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "immutable"])
def test_asked_to_stop_where_nothing_can_be_written(how: str, small_disk: Path) -> None:
    run = start(
        small_disk,
        small_disk.parent / "output.txt",
    )
    undo = ["true"]
    try:
        if how == "full":
            from tests.integration.test_faults_disk import fill

            fill(small_disk)
        else:
            if subprocess.run(
                ["chattr", "+i", str(run.checkpoints)], capture_output=True
            ).returncode:
                pytest.skip("no immutable folders here")
            undo = ["chattr", "-i", str(run.checkpoints)]
        newest = max(run.checkpoints.glob("checkpoint_*.torch")).name
        run.signal(signal.SIGTERM)
        assert run.wait(120) == 74, run.text()
    finally:
        run.end()
        subprocess.run(undo, check=False)
    assert "could not be written" in run.text()
    assert f"the same command resumes from {newest}" in run.text()
    assert "Traceback" not in run.text()
