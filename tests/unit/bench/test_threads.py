"""``bench threads``: fair shares, neighbours that end, and what is written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.bench import thread_worker, threads
from convit_ssl.cli.main import main
from convit_ssl.engines.launch.pace import Pace, Way


def turn(arm: str, neighbours: int, steps: int, cpu_seconds: float) -> dict[str, Any]:
    return {
        "arm": arm, "neighbours": neighbours, "steps": steps, "seconds": 10.0,
        "cpu_seconds": cpu_seconds,
    }  # fmt: skip


SLICES = [
    # 5 steps/s of CPU time with one thread, 8 with two.
    turn("1 thread", 0, 50, 10.0), turn("own", 0, 80, 20.0), turn("brief", 0, 78, 20.0),
    turn("chosen", 0, 80, 20.0),
    turn("1 thread", 2, 34, 6.8), turn("own", 2, 4, 10.0), turn("brief", 2, 36, 10.0),
    turn("chosen", 2, 36, 10.0),
]  # fmt: skip


def test_the_fair_share_is_the_better_of_one_and_all_threads() -> None:
    alone, busy = threads.summarise(SLICES, 0.0, 2)
    assert alone["fair_share"] == pytest.approx(8.0)
    assert alone["of_fair_share"]["1 thread"] == pytest.approx(5 / 8)
    # Beside two: 2/3 of a core for one thread, half of two cores for two.
    assert busy["fair_share"] == pytest.approx(max(5 * 2 / 3, 8 * 2 / 4))
    assert busy["of_fair_share"]["own"] == pytest.approx(0.1)


def test_other_work_on_the_machine_is_counted() -> None:
    alone, busy = threads.summarise(SLICES, 2.0, 2)
    # Two threads that reach this beside two others reach more alone, but not more than twice one.
    assert alone["fair_share"] == pytest.approx(2 * 5 * 2 / 4)
    assert busy["fair_share"] == pytest.approx(2 * 5 * 2 / 6)


def test_neighbours_end_with_the_block_and_by_themselves() -> None:
    with threads.busy_neighbours(2) as busy:
        assert [process.poll() for process in busy] == [None, None]
    assert [process.poll() for process in busy] == [-9, -9]
    with threads.busy_neighbours(1, longest=0.01) as busy:
        assert busy[0].wait(timeout=60) == 0
    with threads.busy_neighbours(0) as busy:
        assert busy == []


def test_runnable_processes(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu 1 2\nprocs_running 4\nprocs_blocked 0\n")
    assert threads.runnable_others(2, 0.0, tmp_path) == 3
    assert threads.runnable_others(2, 0.0, tmp_path / "none") == 0


SETTING = {"size": "nano", "side": 8, "patch": 4, "images": 2}


def test_steps_are_counted_after_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[None] = []
    steps = thread_worker.Steps(SETTING)
    monkeypatch.setattr(thread_worker.Steps, "__call__", lambda _: taken.append(time.sleep(0.001)))
    found = thread_worker.train(steps, 0.01, Pace(1))
    assert found["steps"] == len(taken) - 1
    assert found["seconds"] >= 0.01
    assert found["threads"] == 1
    assert thread_worker.train(steps, 0.001, None)["settling"] < 1


def test_a_step_in_shares_is_the_step_of_one_thread() -> None:
    weights = []
    for way in (Way(1), Way(2, shares=True)):
        steps = thread_worker.Steps(SETTING)
        steps.use(way)
        steps()
        weights.append([p.grad for p in steps.trunk.parameters() if p.grad is not None])
        steps.use(Way(1))
    assert len(weights[0]) == len(weights[1]) > 10
    for one, two in zip(*weights, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.slow
def test_processes_start_and_answer() -> None:
    setting = threads.Setting("nano", 8, 4, 2, 2)
    arm = threads.arms(2)["2 processes"]
    with threads._worker(setting, arm) as worker:
        first, second = threads._ask(worker, 0.01), threads._ask(worker, 0.01)
    assert min(first["steps"], second["steps"]) >= 1


def test_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(
        setting: threads.Setting, neighbours: list[int], seconds: float, rounds: int
    ) -> dict[str, Any]:
        assert (setting.size, neighbours, seconds, rounds) == ("nano", [0, 2], 5.0, 3)
        rows = {"others": [0.0], "slices": SLICES, "summary": threads.summarise(SLICES, 0.0, 2)}
        about = {"size": "nano", "side": 8, "images": 64, "cores": 2, "neighbours": [0, 2]}
        return {"threads": about, "rows": rows}

    monkeypatch.setattr(threads, "measure", measure)
    stem = tmp_path / "bench"
    files = ["--json", f"{stem}.json", "--markdown", f"{stem}.md"]
    assert main(["bench", "threads", "--neighbours", "0", "2", *files]) == 0
    text = stem.with_suffix(".md").read_text()
    assert "| 2 | 4.00 | 3.40 (0.85) | 0.40 (0.10) | 3.60 (0.90) | 3.60 (0.90) |" in text
    assert "| 2 | 0.12 x | 1.06 x | 1.06 x |" in text
    assert "Fair share" in text
    (comparison,) = json.loads(stem.with_suffix(".json").read_text())["comparisons"]
    assert len(comparison["rows"]["slices"]) == 8
