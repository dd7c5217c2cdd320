"""Runs whose screen goes away: a file on a full disk, a reader that has enough, a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.quick_run import Run

LONG = "optim.epochs=400"


def start(run: Run, output: Any, **how: Any) -> None:
    """Start a run whose output a test has in its hands."""
    run.process = subprocess.Popen(
        run.command, stdout=output, stderr=subprocess.STDOUT, cwd=run.root, **how
    )


def log(run: Run) -> str:
    return (run.folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_output_into_a_file_on_a_full_disk(processes: int, tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=2", f"run.processes={processes}")
    with open("/dev/full", "wb") as full:
        start(run, full)
        assert run.process.wait(300) == 0
    assert "cannot be written: [Errno 28] No space left on device" in log(run)
    assert len(run.losses()) == 2


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=2")
    start(run, subprocess.PIPE)
    assert run.process.stdout is not None
    lines = iter(run.process.stdout.readline, b"")  # slow imports are named before
    assert any(line.startswith(b"convit_ssl") for line in lines)
    run.process.stdout.close()
    assert run.process.wait(300) == 0
    assert "Broken pipe" in log(run)
    assert len(run.losses()) == 2


@pytest.mark.slow
def test_no_output_at_all(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=1")
    words = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *run.command]
    assert subprocess.run(words, cwd=tmp_path, timeout=300).returncode == 0
    assert len(run.losses()) == 1


def in_terminal(command: list[str], handler: signal.Handlers) -> tuple[int, int]:
    """Start a command in a terminal of its own: the process, and the terminal's other end."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, handler)
        os.execv(command[0], command)
    return process, terminal


def read_until(terminal: int, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        os.read(terminal, 4096)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminal_that_is_closed(processes: int, tmp_path: Path) -> None:
    run = Run(tmp_path, LONG, "run.checkpoint_minutes=60", f"run.processes={processes}")
    process, terminal = in_terminal(run.command, signal.SIG_DFL)
    read_until(terminal, run.reached(15))
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert "stopped by SIGHUP after step" in log(run)
    assert max(run.saved()) >= 15
    assert run.stray_files() == []


@pytest.mark.slow
def test_nohup_goes_on_without_its_terminal(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=12")
    process, terminal = in_terminal(run.command, signal.SIG_IGN)
    read_until(terminal, run.reached(15))
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(run.losses()) == 12


@pytest.mark.slow
def test_what_is_said_after_the_output_has_failed_ends_nothing() -> None:
    code = (
        "from convit_ssl.engines.callbacks.output import lasting_output\n"
        "with lasting_output():\n"
        "    print('lost')\n"
        "print('lost, too')\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
