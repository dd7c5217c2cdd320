"""Progress where nobody draws a bar."""

from __future__ import annotations

import threading
import time

import pytest

from convit_ssl import starting
from convit_ssl.evaluation import progress

FIRST_LINE, SOONEST = progress.FIRST_LINE, progress.SOONEST


@pytest.fixture(autouse=True)
def _lines_as_outside_of_tests(
    monkeypatch: pytest.MonkeyPatch, _no_progress_of_a_slow_machine: None
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", FIRST_LINE)
    monkeypatch.setattr(progress, "SOONEST", SOONEST)


def test_lines_are_two_seconds_apart_then_five_then_thirty_at_most() -> None:
    pauses = {0: 2, 2: 2, 9.9: 2, 10: 5, 59: 5, 120: 10, 360: 30, 86_400: 30}
    assert {elapsed: starting.pause(elapsed) for elapsed in pauses} == pauses


def test_no_minute_of_work_begins_with_more_than_five_silent_seconds(
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
        f"linear heads: sweep: {seconds} of 80 steps after {seconds} s"
        for seconds in (*range(5, 70, 5), 75)
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
    monkeypatch.setattr(starting, "EARLY", 0.15)
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
