"""When the next checkpoint is due."""

from __future__ import annotations

import errno
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convit_ssl.engines.checkpoints import saving
from convit_ssl.engines.checkpoints.saving import CheckpointHook
from convit_ssl.engines.launch.signals import Agreement, RunFailure


def make_hook(folder: Path, minutes: float = 10.0) -> CheckpointHook:
    run = SimpleNamespace(checkpoint_minutes=minutes, keep_checkpoints=2)
    options, training = SimpleNamespace(run=run), SimpleNamespace(recorder=None)
    return CheckpointHook(options, folder, {}, training, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("minutes", "lag", "seconds_to_write", "expected"),
    [
        (10, 0.0, 0.0, 590.0),  # nothing known of writing yet
        (1, 0.0, 0.0, 57.0),
        (1, 7.0, 13.0, 40.0),  # steps of seven seconds
        (1, 20.0, 40.0, 30.0),  # never more often than twice
    ],
)
def test_a_checkpoint_is_on_the_disk_in_time(
    minutes: float, lag: float, seconds_to_write: float, expected: float, tmp_path: Path
) -> None:
    hook = make_hook(tmp_path, minutes)
    hook.agreement.lag, hook.seconds_to_write = lag, seconds_to_write
    assert hook._interval() == pytest.approx(expected)


def test_the_time_between_decisions_is_known() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.decide(0, False)
        time.sleep(0.05)
    assert 0.05 <= agreement.lag < 5


def full_for(times: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writing fails so many times; gives the names that were written."""
    written: list[str] = []
    left = iter(range(times))

    def write(folder: Path, name: str, state: dict[str, Any], keep: int) -> None:
        if next(left, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(name)

    monkeypatch.setattr(saving, "write_checkpoint", write)
    monkeypatch.setattr(saving, "LAST_PAUSE", 0.01)
    return written


def test_the_last_checkpoint_is_tried_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = full_for(3, monkeypatch)
    hook = make_hook(tmp_path)
    hook._unwritten = ("last", {}, False)
    hook._write(*hook._unwritten)
    hook.finish()
    assert written == ["last"]


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_whose_last_checkpoint_is_not_written_is_not_done(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_for(1000000, monkeypatch)
    monkeypatch.setattr(saving, "LAST_TRIES", 60.0 if asked else 0.1)
    hook = make_hook(tmp_path)
    hook.box.signum = signal.SIGTERM if asked else 0
    hook._unwritten = ("last", {}, False)
    with pytest.raises(RunFailure, match="could not be written"):
        hook.finish()
