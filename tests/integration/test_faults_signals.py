"""Signals in the middle of real runs: a checkpoint, an exit code, and the same losses later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import quick_run
from tests.quick_run import Run

LONG = ("optim.epochs=400", "run.checkpoint_minutes=60")
PACED = Path(__file__).with_name("recording_run.py")
PATIENCE = 400.0  # seconds, on a machine that does much else


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    run = Run(tmp_path_factory.mktemp("undisturbed"), "optim.epochs=6", "run.processes=2")
    assert run.complete() == 0, run.text()
    return run.losses()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_two_processes_save_leave_and_go_on_exactly(
    number: signal.Signals,
    tmp_path: Path,
    undisturbed: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quick_run, "TOOL", PACED)
    run = Run(tmp_path, "optim.epochs=6", "run.processes=2", "run.checkpoint_minutes=60")
    run.start(PACE="0.2")
    run.until(run.reached(12))
    run.signal(number)
    assert run.wait(PATIENCE) == 128 + number, run.text()
    assert f"stopped by {number.name} after step" in run.text()
    assert "Traceback" not in run.text()
    assert max(run.saved()) % 10 or max(run.saved()) >= 12
    assert run.complete() == 0, run.text()
    assert run.losses() == undisturbed
    assert run.stray_files() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_signal_before_the_first_step(
    number: signal.Signals, processes: int, delay: float, tmp_path: Path
) -> None:
    """While processes are started, PyTorch is imported, the network is made."""
    run = Run(tmp_path, *LONG, f"run.processes={processes}").start()
    run.until(lambda: (run.folder / "config.yaml").exists())
    time.sleep(delay)
    run.signal(number)
    assert run.wait(PATIENCE) == 128 + number, run.text()
    assert f"stopped by {number.name}" in run.text()
    assert "Traceback" not in run.text()
    assert not (run.folder / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.2, 1.0, 3.0])
def test_ctrl_c_in_a_terminal_before_the_first_step(delay: float, tmp_path: Path) -> None:
    """It reaches the command and the processes that it has started, at once."""
    run = Run(tmp_path, *LONG, "run.processes=2").start()
    run.until(lambda: (run.folder / "config.yaml").exists())
    time.sleep(delay)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(PATIENCE) == 128 + signal.SIGINT, run.text()
    assert "stopped by SIGINT" in run.text()
    assert "Traceback" not in run.text()


@pytest.mark.slow
def test_a_signal_while_options_are_read(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from convit_ssl.engines.launch.early_signals import signals_outside_training\n"
        "with signals_outside_training():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith("convit-ssl train: stopped by SIGINT")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both(tmp_path: Path) -> None:
    run = Run(tmp_path, *LONG, "run.processes=2").start()
    run.until(lambda: run.steps() >= 5 and run.alive(1))
    os.kill(run.beat(1)["pid"], signal.SIGUSR2)
    assert run.wait(PATIENCE) == 128 + signal.SIGUSR2, run.text()
    assert run.saved()


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_rest_leaves(tmp_path: Path) -> None:
    run = Run(tmp_path, *LONG, "run.processes=2").start()
    run.until(lambda: run.steps() >= 5 and run.alive(1))
    os.kill(run.beat(1)["pid"], signal.SIGKILL)
    assert run.wait(PATIENCE) == 75, run.text()
    assert "rank 1 (process" in run.text() and "SIGKILL" in run.text()
    assert "Traceback" not in run.text()


def loader_workers_of(process: int) -> list[int]:
    """Children of a training process that were forked from it."""
    own = Path(f"/proc/{process}/cmdline").read_bytes()
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(c) for c in children if Path(f"/proc/{c}/cmdline").read_bytes() == own]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_loader_worker_is_named(processes: int, tmp_path: Path) -> None:
    """As the kernel kills it when memory runs out."""
    last = processes - 1
    run = Run(tmp_path, "optim.epochs=60", f"run.processes={processes}").start()
    run.until(lambda: run.reached(12)() and run.alive(last))
    os.kill(loader_workers_of(run.beat(last)["pid"])[0], signal.SIGKILL)
    assert run.wait(PATIENCE) == 75, run.text()
    assert f"rank {last} on {os.uname().nodename} lost a loader worker at step" in run.text()
    assert "Traceback" not in run.text()
    assert run.saved()


@pytest.mark.slow
def test_a_process_that_stands_still_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, *LONG, "run.processes=2", "run.timeout_minutes=0.4").start()
    run.until(lambda: run.steps() >= 5 and run.alive(1))
    stopped = run.beat(1)["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert run.wait(PATIENCE) == 75, run.text()
    finally:
        run.end()
    assert "no step for" in run.text()
    assert f"rank 1 on {os.uname().nodename} (process {stopped})" in run.text()
    assert "has not responded" in run.text()


@pytest.mark.slow
def test_a_run_that_goes_on_is_not_overwritten(tmp_path: Path) -> None:
    # Long enough to be at work when the second command has started on a busy machine.
    run = Run(tmp_path, *LONG, "run.keep_checkpoints=2", "optim.epochs=20000").start()
    run.until(run.reached(12))
    config, before = run.folder / "config.yaml", run.losses()
    written = config.read_text()
    second = Run(tmp_path, *LONG, "run.overwrite=true", "seed=1")
    second.output = tmp_path / "second.txt"
    assert second.complete() == 2
    assert "another process is training in" in second.text()
    assert config.read_text() == written
    assert run.process.poll() is None
    assert len(run.losses()) > len(before) > 0
    run.end()


@pytest.mark.slow
def test_what_is_refused_overwrites_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "optim.epochs=1")
    assert run.complete() == 0, run.text()
    kept = run.saved(), run.losses()
    assert run.complete("run.overwrite=true", "run.processes=2", "run.nodes=2") == 2
    assert "run.nodes=2 needs run=slurm" in run.text()
    assert (run.saved(), run.losses()) == kept
    assert run.complete("run.overwrite=true", "seed=1") == 0, run.text()
    assert run.losses() != kept[1]
