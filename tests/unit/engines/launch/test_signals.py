"""Stop signals are kept until a step ends; processes agree; who hangs is named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from convit_ssl.engines.callbacks.heartbeat import (
    IMAGES,
    LEARNING,
    Beat,
    Heartbeat,
    describe_stall,
    describe_straggler,
    read_beats,
)
from convit_ssl.engines.checkpoints.lock import lock_run
from convit_ssl.engines.launch.early_signals import STOP_SIGNALS, signals_outside_training
from convit_ssl.engines.launch.signals import Agreement, SignalBox, Stopped
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes


def test_a_signal_whose_exception_was_lost_still_stops_the_run() -> None:
    """As in a destructor, or in an import that is tried with a bare `except`."""
    box = SignalBox()
    with signals_outside_training(words=False):
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        box.install()
        box.restore()
    assert box.signum == signal.SIGTERM
    another = SignalBox()
    another.install()
    another.restore()
    assert another.signum == 0


def test_a_signal_whose_exception_became_another_still_ends_the_run() -> None:
    """As in omegaconf, which wraps what is raised while it handles an error of its own."""

    def as_a_library_does() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except SystemExit:
            raise AttributeError("a library's own words") from None

    with pytest.raises(SystemExit) as stop, signals_outside_training(words=False):
        as_a_library_does()
    assert stop.value.code == 128 + signal.SIGINT
    with pytest.raises(AttributeError), signals_outside_training(words=False):
        raise AttributeError("without a signal")


OWN = (
    "import os, signal\n"
    "from convit_ssl.engines.launch.early_signals import own_process, signals_outside_training\n"
    "own_process()\n"
)


def _ends(code: str) -> str:
    """Standard error of a process of ours that ended by SIGTERM."""
    command = [sys.executable, "-c", OWN + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "after it" not in done.stdout
    return done.stderr


def test_a_signal_in_a_destructor_ends_a_process_of_ours_without_a_traceback() -> None:
    said = _ends(
        "class Library:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "with signals_outside_training():\n"
        "    Library()\n"
        "    print('after it')\n"
    )
    assert said.startswith("convit-ssl train: stopped by SIGTERM")


def test_a_second_signal_ends_a_process_of_ours_that_lost_the_first() -> None:
    said = _ends(
        "with signals_outside_training():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException:\n"
        "        pass\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('after it')\n"
    )
    assert said.count("stopped by") == 1


def test_a_signal_while_a_line_is_written_has_its_words() -> None:
    """A buffer is not entered twice: Python raises RuntimeError then."""
    said = _ends(
        "import sys\n"
        "class Busy:\n"
        "    def write(self, text): raise RuntimeError('reentrant call')\n"
        "    def flush(self): pass\n"
        "with signals_outside_training():\n"
        "    sys.stderr = Busy()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('after it')\n"
    )
    assert "stopped by SIGTERM while no training" in said


def test_a_process_of_ours_lives_on_without_a_signal() -> None:
    """What a destructor raises of its own is reported as ever."""
    code = OWN + (
        "class Library:\n"
        "    def __del__(self):\n"
        "        raise ValueError('of its own')\n"
        "with signals_outside_training():\n"
        "    Library()\n"
        "    print('after it')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "of its own" in done.stderr and "after it" in done.stdout


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_waits_in_the_box(number: signal.Signals) -> None:
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    before = signal.getsignal(number)
    box = SignalBox()
    box.install()
    try:
        os.kill(os.getpid(), number)
        assert box.signum == number
        os.kill(os.getpid(), signal.SIGUSR1)  # the first one counts
        assert box.signum == number
    finally:
        box.restore()
    assert signal.getsignal(number) == before
    assert Stopped(number, 5).exit_code == 128 + number


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    box = SignalBox()
    try:
        box.install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert box.signum == 0
    finally:
        box.restore()
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_again_ends_at_once_but_its_echo_does_not() -> None:
    box = SignalBox()
    box.install()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        box.received_at -= 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        box.restore()


def test_a_process_that_hangs_leaves_when_its_grace_is_over() -> None:
    code = (
        "import os, signal, time\n"
        "from convit_ssl.engines.launch.signals import SignalBox\n"
        "box = SignalBox(0.3, lambda: 'rank 7 is missing')\n"
        "box.install()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "for _ in range(600): time.sleep(0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGTERM
    assert "SIGTERM came 0.3 s ago" in done.stderr and "rank 7 is missing" in done.stderr


def test_alone_every_step_decides() -> None:
    agreement = Agreement()
    assert agreement.decide(0, False) == (0, False)
    assert agreement.decide(10, True) == (10, True)


def _agree(steps: int) -> list[tuple[int, bool, int]]:
    """Rank 1 gets a signal at step 25; rank 0 wants to save from step 40 on."""
    agreement, rank = Agreement(), dist.get_rank()
    for step in range(steps):
        stop = signal.SIGUSR1 if rank == 1 and step >= 25 else 0
        decided = agreement.decide(stop, rank == 0 and step >= 40)
        if decided[0]:
            break
        time.sleep(0.002 * rank)
    return processes.gather((step, *decided))


def test_two_processes_stop_at_the_same_step() -> None:
    result = processes.run_in_processes(_agree, 2, 100)
    assert result is not None
    (first, stop, _), (second, other, _) = result
    assert first == second and stop == other == signal.SIGUSR1
    assert 25 <= first <= 45


def beat(rank: int, step: int, stage: str, since: float = 0.0, written: float = 100.0) -> Beat:
    return Beat(rank, f"n{rank}", 1000 + rank, step, stage, since, written)


def test_the_one_that_is_waited_for_is_named() -> None:
    silent = [beat(0, 7, LEARNING), beat(1, 7, LEARNING), beat(2, 7, LEARNING, written=40.0)]
    assert describe_stall(silent, 100.0).startswith(
        "rank 2 on n2 (process 1002) has not responded for 60 s (last: step 7"
    )
    slow = [beat(0, 7, LEARNING), beat(1, 7, IMAGES, since=20.0), beat(2, 7, LEARNING)]
    assert describe_stall(slow, 100.0) == (
        "rank 1 on n1 (process 1001) has been waiting for images for 80 s, after step 7; "
        "the others are exchanging gradients after step 7"
    )
    behind = [beat(0, 8, IMAGES), beat(1, 7, LEARNING)]
    assert describe_stall(behind, 100.0).startswith(
        "rank 1 on n1 (process 1001) has been exchanging"
    )
    same = [beat(0, 7, LEARNING), beat(1, 7, LEARNING, since=70.0)]
    assert describe_stall(same, 100.0) == (
        "all 2 processes have been exchanging gradients for 30 s, after step 7"
    )
    alone = [beat(0, 0, LEARNING, since=70.0)]
    assert describe_stall(alone, 100.0) == "it has been computing for 30 s, after step 0"
    assert describe_stall([], 1.0) == "no process reported anything"


def test_a_straggler_is_named_and_equals_are_not() -> None:
    assert describe_straggler([(0.1, "a"), (0.11, "b"), (0.12, "c")]) == ""
    assert describe_straggler([(0.001, "a"), (0.01, "b")]) == ""  # too little to matter
    text = describe_straggler([(0.1, "a"), (0.9, "b")])
    assert text.startswith("rank 1 on b needs 0.90 s a step")


def test_a_clock_that_jumps_is_no_standstill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convit_ssl.engines.callbacks.heartbeat.BEAT", 0.01)
    said: list[str] = []
    heart = Heartbeat(tmp_path, 0, 1, stall_seconds=100.0, say=said.append)
    now = time.time
    heart.start()
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    time.sleep(0.1)
    heart.stop(finished=False)
    assert said == []
    (beat,) = read_beats(tmp_path)
    assert beat.written - beat.since < 60


def test_beats_are_files_that_go_with_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    first = Heartbeat(tmp_path, 0, 2, stall_seconds=0.0, say=said.append)
    second = Heartbeat(tmp_path, 1, 2, stall_seconds=100.0, say=None)
    (tmp_path / "heartbeat").mkdir()
    (tmp_path / "heartbeat" / "rank_00005.json").write_text("{}")  # of four nodes, earlier
    first.start()
    second.start()
    first.at(12, LEARNING)
    first._write()
    assert [(b.rank, b.step) for b in read_beats(tmp_path)] == [(0, 12), (1, 0)]
    first._speak()
    assert said[0].startswith("warning: no step for 0 s: rank 1 on")
    first.stop(finished=True)
    second.stop(finished=True)
    assert not (tmp_path / "heartbeat").exists()


def test_one_run_at_a_time_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from convit_ssl.engines.checkpoints.lock import lock_run\n"
        "with lock_run(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        busy = f"another process is training in .* [(]process {other.pid} on "
        with pytest.raises(UserError, match=busy), lock_run(tmp_path, patience=1.5):
            pass
        assert re.search(f"{busy}.*; waiting up to 2 s", capsys.readouterr().out)
        other.kill()  # the lock goes with the process
        other.wait()
        with lock_run(tmp_path, patience=10.0):
            pass
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize(
    "damage", [{"written": None}, {"step": "7"}, {"stage": []}, {"since": float("inf")}]
)
def test_a_damaged_beat_is_left_out(tmp_path: Path, damage: dict[str, object]) -> None:
    """Found by fuzzing: what describes a stall must not end a run."""
    beat = {
        "rank": 0,
        "host": "a",
        "pid": 3,
        "step": 7,
        "stage": "loss",
        "since": 1.0,
        "written": 2.0,
    }
    (tmp_path / "heartbeat").mkdir()
    for rank, more in ((0, {}), (1, damage)):
        path = tmp_path / "heartbeat" / f"rank_{rank:05d}.json"
        path.write_text(json.dumps({**beat, "rank": rank, **more}))
    assert [found.rank for found in read_beats(tmp_path)] == [0]
