"""Slow imports and silent work are reported while they last; a quick start says nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convit_ssl import starting

SLOW = "import time\nfor _ in range(60):\n    time.sleep(0.005)\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(starting, "FIRST_LINE", 0.05)
    monkeypatch.setattr(starting, "BETWEEN_CHECKS", 0.01)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_library.py").write_text(SLOW)
    (tmp_path / "outer_library.py").write_text("import slow_library\n")


@pytest.mark.usefixtures("quick")
def test_the_outermost_library_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with starting.silence_reported("knn"):
        import outer_library  # type: ignore[import-not-found]  # noqa: F401
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert set(lines) == {"convit-ssl knn: importing libraries (outer_library), 0 s"}
    sys.modules.pop("outer_library"), sys.modules.pop("slow_library")


@pytest.mark.usefixtures("quick")
def test_silent_work_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with starting.silence_reported("train"):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4  # twice as far apart each time
    assert set(lines) == {"convit-ssl train: working, 0 s"}


@pytest.mark.usefixtures("quick")
def test_a_part_of_silent_work_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with starting.silence_reported("study"), starting.working_on("simclr, seed 0"):
        time.sleep(0.3)
    assert set(capsys.readouterr().err.splitlines()) == {"convit-ssl study: simclr, seed 0, 0 s"}
    assert starting._parts == []


@pytest.mark.usefixtures("quick")
def test_who_reports_its_own_progress_is_not_interrupted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with starting.silence_reported("knn"):
        starting.own_progress("features")
        time.sleep(0.2)
        starting.own_progress_ended("features")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_one_process_of_a_job_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    with starting.silence_reported("train"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


class _Clock:
    """The seconds at which silence is checked, and what is done just before."""

    def __init__(self, events: Iterator[tuple[float, Callable[[], None]]]) -> None:
        self.events, self.now = events, 0.0

    def wait(self, seconds: float) -> bool:
        """Go to the next check; True after the last."""
        event = next(self.events, None)
        if event is not None:
            self.now = event[0]
            event[1]()
        return event is None


def test_silence_counts_from_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing() -> None:
        """Nobody speaks."""

    clock = _Clock(
        iter(
            [
                (1.0, nothing),
                (900.0, starting.spoke),
                (901.0, nothing),
                (902.0, nothing),  # the first line
                (903.0, nothing),
                (904.0, nothing),  # twice as long after
                (905.0, starting.spoke),
                (906.0, lambda: starting.own_progress("bar")),
                (990.0, lambda: starting.own_progress_ended("bar")),
            ]
        )
    )
    monkeypatch.setattr("convit_ssl.starting.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(starting, "FIRST_LINE", 2.0)
    starting.spoke()
    ended: threading.Event = clock  # type: ignore[assignment]
    starting._report("study", 0, ended)
    seconds = [line.rsplit(" ", 2)[1] for line in capsys.readouterr().err.splitlines()]
    assert seconds == ["2", "4", "85"]
