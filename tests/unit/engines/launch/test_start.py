"""Why a run of several local processes ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convit_ssl.data.loading.samples import DataGoneError
from convit_ssl.engines.checkpoints.files import checkpoint_name, write_checkpoint
from convit_ssl.engines.launch import start as launch
from convit_ssl.engines.launch.signals import RunFailure
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.schema import DataOptions

NAMED = "rank 0 lost another process: rank 1 has not responded"


def _stands_still(rank: int, meeting: str) -> None:
    """The second process stops; the first one gives up waiting for it, and names it."""
    if rank == 1:
        Path(meeting, "stopped").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    while not Path(meeting, "stopped").exists():
        time.sleep(0.05)
    Path(meeting, "failure_0").write_text(NAMED)
    raise RunFailure(NAMED)


def _killed(rank: int, meeting: str) -> None:
    """The second process is killed; the first one notices before the launcher does."""
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    Path(meeting, "failure_0").write_text("rank 0 lost another process")
    raise RunFailure("rank 0 lost another process")


def _join(function: Any, meeting: Path) -> None:
    spawn: Any = torch.multiprocessing.spawn
    launch._join(spawn(function, (str(meeting),), 2, join=False), meeting)


def test_a_process_that_the_launcher_had_to_kill_is_not_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LAST_WORDS", 1.0)
    with pytest.raises(RunFailure, match=NAMED):
        _join(_stands_still, tmp_path)


def test_a_process_that_something_else_killed_is(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"rank 1 \(process \d+\) was killed by SIGKILL"):
        _join(_killed, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_processes_are_being_started_is_not_lost(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(*_: object, **__: object) -> SimpleNamespace:
        os.kill(os.getpid(), number)
        return SimpleNamespace(processes=[], join=lambda grace_period: True)

    monkeypatch.setattr(torch.multiprocessing, "spawn", spawn)
    plan: Any = SimpleNamespace(placement=SimpleNamespace(processes=2))
    assert launch._spawn(plan, 0.0) == 128 + number


def test_a_run_that_another_command_began_meanwhile_is_not_mixed_with(tmp_path: Path) -> None:
    """The command looked before it waited for the folder; it looks again when it has it."""
    options: dict[str, Any] = {"seed": 0, "run": {"accept_changes": [], "dir": str(tmp_path)}}
    options |= {"data": dataclasses.asdict(DataOptions()), "derived": {"test_model": False}}
    entry = {"config": options, "ranks": []}
    state = {"convit_ssl": entry, "classy_state_dict": {}}
    write_checkpoint(tmp_path / "checkpoints", checkpoint_name(1, 10), state, 2)
    now = {**options, "seed": 7}
    none: Any = None
    plan = Plan({}, now, none, none, {}, {})
    with pytest.raises(UserError, match="seed: 0 then, 7 now"):
        launch._claim(plan, tmp_path, afresh=False)
    assert not (tmp_path / "config.yaml").exists()
    launch._claim(plan, tmp_path, afresh=True)
    assert (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("error", [DataGoneError("/data is gone"), RunFailure("rank 3 is lost")])
def test_what_may_succeed_later_ends_with_75(
    error: UserError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr(launch, "make_plan", lambda composed: None)
    monkeypatch.setattr(launch, "_run", fails)
    composed: Any = SimpleNamespace(auto=False, race=None)
    assert launch.launch(composed, [], 0.0) == 75
    assert capsys.readouterr().err == f"convit-ssl train: {error}\n"


def test_so_does_a_process_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise DataGoneError("/data is gone")

    monkeypatch.setattr("convit_ssl.engines.train.train", gone)
    monkeypatch.setattr(launch, "leave_with", lambda launcher: None)
    plan: Any = None
    with pytest.raises(DataGoneError):
        launch._process(1, plan, 0.0, str(tmp_path), 0)
    assert (tmp_path / "failure_1").read_text() == "/data is gone"
