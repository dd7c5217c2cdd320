"""Progress where nobody draws a bar."""

from __future__ import annotations

import threading
import time

import pytest

from convit_ssl import starting
from convit_ssl.evaluation import progress


def test_a_log_gets_lines_twice_as_far_apart_each_time_up_to_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.progress_bar("linear heads", "steps") as report:
        assert report is not None
        for step in range(0, 80, 5):
            clock[0] = 100.0 + step
            report(step, 80, "sweep")
    assert capsys.readouterr().err.splitlines() == [
        "linear heads: sweep: 5 of 80 steps after 5 s",
        "linear heads: sweep: 10 of 80 steps after 10 s",
        "linear heads: sweep: 20 of 80 steps after 20 s",
        "linear heads: sweep: 40 of 80 steps after 40 s",
        "linear heads: sweep: 70 of 80 steps after 70 s",
    ]


def test_short_parts_one_after_another_are_not_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    starting.spoke()
    for part in range(4):
        with progress.progress_bar(f"part {part}", "images") as report:
            assert report is not None
            for done in range(4):
                report(done, 4)
                clock[0] += 0.4
    assert capsys.readouterr().err.splitlines() == [
        "part 1: 2 of 4 images after 1 s",
        "part 2: 3 of 4 images after 1 s",
    ]


def test_other_processes_report_nothing() -> None:
    with progress.progress_bar("", "steps") as report:
        assert report is None


@pytest.mark.parametrize("reports", [True, False])
def test_a_step_that_reports_nothing_gets_lines_as_well(
    reports: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.05)
    with progress.progress_bar("export", "forms") as report:
        assert report is not None
        if reports:
            report(0, 2, "onnx")
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    start = "export: onnx: 0 of 2 forms after " if reports else "export: working, "
    assert 2 <= len(lines) <= 4 and all(line.startswith(start) for line in lines), lines
    time.sleep(0.2)
    assert not capsys.readouterr().err


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="stop"), progress.progress_bar("a", "b"):
        raise ValueError("stop")
    assert threading.active_count() == before
