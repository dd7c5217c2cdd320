"""A study survives stops and failures, and ends what it started."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.studies.design import (
    Run,
    Settings,
    sample_efficiency,
)
from convit_ssl.evaluation.studies.report import (
    study_rows,
)
from convit_ssl.evaluation.studies.runner import State, run_study
from convit_ssl.runs import RunFolder
from tests.unit.evaluation.studies.fake_runs import SETTINGS, TRAIN, fake, small_study


def test_runs_at_once_never_exceed_the_jobs(tmp_path: Path) -> None:
    wait = (
        "deadline = time.monotonic() + 100\n"
        "while (folder.parent / 'trace.txt').read_text().count('start') < 3:\n"
        "    assert time.monotonic() < deadline; time.sleep(0.02)\n"
    )
    together = TRAIN.replace("time.sleep(seconds)\n", wait)

    def command(run: Run, folder: Path) -> list[str]:
        return [sys.executable, "-c", together, str(folder), "0.5", "0"]

    states = run_study(small_study(), tmp_path, jobs=3, command=command, interval=0.02)
    assert [state.status for state in states] == ["done"] * 8
    events = [line.split() for line in (tmp_path / "runs" / "trace.txt").read_text().splitlines()]
    events.sort(key=lambda event: float(event[2]))
    running = peak = 0
    for event in events:
        running += 1 if event[0] == "start" else -1
        peak = max(peak, running)
    assert peak == 3


def test_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    failing = fake(lambda run: "fail" if run.seed == 1 else 0.5)
    first = run_study(small_study(), tmp_path, jobs=4, command=failing, interval=0.02)
    assert [s.status for s in first] == ["done"] * 4 + ["failed"] * 4
    assert first[-1].message == "exit code 1: the lights went out"
    second = run_study(small_study(), tmp_path, jobs=4, command=fake(0.7), interval=0.02)
    assert [s.result["accuracy"] for s in second] == [0.5] * 4 + [0.7] * 4
    assert second[0].result["seconds"] > 0


def test_other_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    run_study(small_study(), tmp_path, jobs=4, command=fake(), interval=0.02)
    longer = sample_efficiency(["convit_nano"], Settings("digits", epochs=3), [1.0], [0])
    with pytest.raises(UserError, match=r"different settings \(.*optim.epochs=2.*another --out"):
        run_study(longer, tmp_path, command=fake())


def test_a_stop_stops_the_runs(tmp_path: Path) -> None:
    def interrupt(states: list[State]) -> None:
        if (tmp_path / "runs" / "trace.txt").exists():
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), tmp_path, 2, interrupt, fake(0.5, 60.0), interval=0.02)
    assert time.monotonic() - started < 30
    done = run_study(small_study(), tmp_path, 4, command=fake(0.6), interval=0.02)
    assert {state.result["accuracy"] for state in done} == {0.6}


@pytest.mark.parametrize("mark", ["images", "weights"])
def test_other_images_or_weights_are_no_repetition(tmp_path: Path, mark: str) -> None:
    study = sample_efficiency(
        ["convit_nano"], SETTINGS, [1.0], [0], {"convit_nano": "run"}, scratch=False
    )
    marks = {"images": {"images": "aa"}, "weights": {"weights": {"run": "aa"}}}[mark]
    first = dataclasses.replace(study, **marks)
    states = run_study(first, tmp_path, command=fake(), interval=0.02)
    (row,) = study_rows(states)
    assert row["fingerprint"][mark] == "aa"
    assert run_study(first, tmp_path, command=fake(0.7), interval=0.02)[0].result["accuracy"] == 0.5
    changed = {"images": {"images": "bb"}, "weights": {"weights": {"run": "bb"}}}[mark]
    with pytest.raises(UserError, match=r"changed since .* another --out"):
        run_study(dataclasses.replace(study, **changed), tmp_path, command=fake())


def test_progress_is_read_from_the_run(tmp_path: Path) -> None:
    run = small_study().runs[0]
    state = State(run, tmp_path, "running")
    assert state.progress == 0
    (tmp_path / "metrics.jsonl").write_text('{"kind":"epoch","epoch":1}\n{"kind":"step","epoch":2')
    assert RunFolder(tmp_path).last_row() == {"kind": "epoch", "epoch": 1}
    assert state.progress == 1 / run.epochs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminate_of_the_study_reaches_the_runs(number: signal.Signals, tmp_path: Path) -> None:
    """Told to end, or without its terminal, a study passes it on and leaves no run behind."""
    pid_file = tmp_path / "pid"
    child = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(60)"
    main = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup
        "from convit_ssl.evaluation.studies.design import Settings, sample_efficiency\n"
        "from convit_ssl.evaluation.studies.runner import run_study\n"
        "study = sample_efficiency(['deit_nano'], Settings('digits'), [1.0], [0])\n"
        f"command = [sys.executable, '-c', {child!r}, {str(pid_file)!r}]\n"
        f"run_study(study, {str(tmp_path)!r}, command=lambda run, folder: command)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", main], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(40) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_runs_of_another_study_are_taken_over(tmp_path: Path) -> None:
    run_study(small_study(), tmp_path / "first", 4, command=fake(0.5), interval=0.02)
    settings = Settings("digits", epochs=2, batch_size=16)
    second = sample_efficiency(["convit_nano"], settings, [1.0], [0, 7])
    states = run_study(
        second, tmp_path / "second", 2, None, fake(0.7), 0.02, reuse=tmp_path / "first"
    )
    assert [state.result["accuracy"] for state in states] == [0.5, 0.7]
