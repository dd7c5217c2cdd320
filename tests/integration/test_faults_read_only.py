"""A disk that becomes read-only under a run, or was full: the run says so, and resumes exactly."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick_run import Run

EPOCHS = "optim.epochs=60"


class Disk:
    """An ext4 file system in a file, which can fail as a broken disk does.

    Args:
        root: folder of the file and of the place where it is mounted.
    """

    def __init__(self, root: Path) -> None:
        self.image, self.place = root / "image", root / "disk"
        self.place.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(40 * 2**20)
        make = ["mke2fs", "-q", "-F", "-m", "0", "-t", "ext4", str(self.image)]
        if not shutil.which("mke2fs") or subprocess.run(make, capture_output=True).returncode:
            pytest.skip("there is no mke2fs here")
        if not self.mount():
            pytest.skip("mounting a file system needs root and loop devices")

    def mount(self, how: str = "rw") -> bool:
        command = ["mount", "-o", f"loop,{how}", str(self.image), str(self.place)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def fail(self) -> None:
        """Nothing can be written any more, as after an error of the device."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.place)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False)

    def mend(self) -> None:
        """As an administrator does it."""
        self.unmount()
        checked = subprocess.run(["e2fsck", "-f", "-y", str(self.image)], capture_output=True)
        assert checked.returncode in (0, 1, 2), checked.stdout
        assert self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.unmount()


def fill(filler: Path) -> None:
    """Take all the room, that of delayed allocation included."""
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            os.fsync(file.fileno())


def start(place: Path, output: Path, processes: int = 1) -> Run:
    run = Run(place, EPOCHS, "run.checkpoint_minutes=0.01", f"run.processes={processes}")
    run.output = output
    return run.start()


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(disk: Disk, tmp_path: Path) -> None:
    becomes_read_only(disk, tmp_path, processes=1)


def becomes_read_only(disk: Disk, root: Path, processes: int) -> None:
    """A run whose disk fails: stopped, started in vain, and resumed after the disk was mended."""
    run = start(disk.place, root / "output.txt", processes)
    try:
        run.until(lambda: len(run.saved()) >= 2)
        disk.fail()
        run.until(lambda: "could not be written" in run.text())
        newest = run.saved()[-1]
        run.signal(signal.SIGTERM)
        assert run.wait(120) == 74, run.text()
    finally:
        run.end()
    assert "Read-only file system" in run.text()
    assert f"resumes from checkpoint_e{newest // 10:04d}_s{newest:08d}.torch" in run.text()
    before = len(run.text())
    assert run.complete() == 2, run.text()[before:]
    said = run.text()[before:]
    assert "cannot be written (Read-only file system); choose another" in said
    assert "Traceback" not in run.text()
    disk.mend()
    resumes_exactly(run, root, processes)


def stopped_while_full(place: Path, root: Path, processes: int) -> None:
    """A run that was stopped while its disk was full, and resumed after the disk was emptied."""
    run = start(place, root / "output.txt", processes)
    try:
        run.until(lambda: len(run.saved()) >= 2)
        filler = place / "filler"
        fill(filler)
        run.signal(signal.SIGTERM)
        assert run.wait(120) == 74, run.text()
    finally:
        run.end()
    filler.unlink()
    resumes_exactly(run, root, processes)


def resumes_exactly(run: Run, root: Path, processes: int) -> None:
    assert run.complete() == 0, run.text()
    assert "Traceback" not in run.text() and run.stray_files() == []
    whole = Run(root / "whole", EPOCHS, f"run.processes={processes}")
    assert whole.complete() == 0, whole.text()
    assert run.losses() == whole.losses()


def by_hand(processes: int) -> None:
    """Both, with some processes: `python -m tests.integration.test_faults_read_only 2`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("read-only", "full"):
            root = Path(folder, name)
            root.mkdir()
            disk = Disk(root)
            try:
                if name == "full":
                    stopped_while_full(disk.place, root, processes)
                else:
                    becomes_read_only(disk, root, processes)
                print((root / "output.txt").read_text())
                print(f"{name}, {processes} process(es): resumed, losses equal", flush=True)
            finally:
                disk.unmount()


if __name__ == "__main__":
    by_hand(int(sys.argv[1]))
