"""Progress where nobody draws a bar."""

from __future__ import annotations

import pytest

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


def test_other_processes_report_nothing() -> None:
    with progress.progress_bar("", "steps") as report:
        assert report is None
