"""The number of threads that is chosen, on machines that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convit_ssl.engines.launch.pace import LONGEST_WAIT, Decision, Pace, Way
from convit_ssl.engines.launch.placement import Placement
from convit_ssl.engines.launch.thread_trials import (
    ThreadHook,
    read_decisions,
    thread_hooks,
)
from convit_ssl.runs import RunFolder

Machine = Callable[[int], float]


def quiet(threads: int) -> float:
    return 0.2 / threads**0.9


def busy(threads: int) -> float:
    """Threads that wait for each other; one is not disturbed."""
    return 0.2 if threads == 1 else 0.3 * threads


def train(pace: Pace, machine: Machine, steps: int) -> list[Decision]:
    """The decisions of so many steps."""
    decisions = (pace.step(machine(pace.threads)) for _ in range(steps))
    return [decision for decision in decisions if decision is not None]


@pytest.mark.parametrize(
    ("most", "machine", "threads"),
    [(2, quiet, 2), (16, quiet, 16), (2, busy, 1), (12, busy, 1), (16, busy, 1)],
)
def test_the_fastest_number_is_taken(most: int, machine: Machine, threads: int) -> None:
    pace = Pace(most)
    assert pace.threads == most
    (decision,) = train(pace, machine, 60)
    assert decision.way.threads == pace.threads == threads
    assert decision.changed == (threads != most)


def test_a_number_in_between() -> None:
    pace = Pace(16)
    train(pace, lambda threads: quiet(threads) if threads <= 4 else 1.0, 60)
    assert pace.threads == 4


def test_a_trial_on_a_quiet_machine_ends_soon() -> None:
    """Steps of minutes are not repeated with one thread only to see that it is slower."""
    pace = Pace(16)
    tried = []
    while not train(pace, lambda threads: 60.0 * 16 / threads, 1):
        tried.append(pace.threads)
    assert min(tried) == 8
    assert tried.count(8) <= 3


def test_one_slow_step_decides_nothing() -> None:
    pace = Pace(2)
    seconds = iter([0.1, 0.1, 3.0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    while (decision := pace.step(next(seconds))) is None:
        pass
    assert decision.way.threads == 2


def test_equal_times_keep_all_threads() -> None:
    pace = Pace(4)
    (decision,) = train(pace, lambda threads: 0.2, 40)
    assert decision.way.threads == 4


def test_a_machine_that_becomes_busy_and_quiet_again() -> None:
    pace = Pace(2)
    train(pace, quiet, 300)
    assert pace.threads == 2
    (down,) = train(pace, busy, 300)
    assert (down.way.threads, down.changed, pace.threads) == (1, True, 1)
    decisions = train(pace, quiet, 800)
    assert decisions[0].way.threads == pace.threads == 2


def test_trials_that_change_nothing_become_rare() -> None:
    pace = Pace(2)
    decisions = train(pace, busy, 20_000)  # more than an hour of steps
    assert {decision.way.threads for decision in decisions} == {1}
    assert len(decisions) < 8
    assert pace._wait == LONGEST_WAIT


def test_everything_becoming_slower_does_not_set_off_trials_for_ever() -> None:
    pace = Pace(2)
    train(pace, quiet, 100)
    decisions = train(pace, lambda threads: 3 * quiet(threads), 2000)
    assert [decision.changed for decision in decisions] == [False]


def test_a_resumed_run_keeps_its_number_until_it_is_slow() -> None:
    pace = Pace(2, settled=Way(2))
    assert train(pace, quiet, 500) == []
    train(pace, busy, 300)
    assert pace.threads == 1
    assert Pace(2, settled=Way(1)).threads == 1
    assert Pace(2, settled=Way(16)).threads == 2  # of a larger machine


def in_shares(threads: int, shares: bool) -> float:
    """As `quiet`, with 30 % lost where threads divide every operation."""
    return quiet(threads) * (1.0 if shares or threads == 1 else 1.3)


@pytest.mark.parametrize("most", [2, 3, 16])
@pytest.mark.parametrize("better", [True, False])
def test_shares_of_the_batch_are_timed_beside_shared_operations(most: int, better: bool) -> None:
    pace = Pace(most, shares=True)
    assert pace.way == Way(most, shares=True)
    decisions = []
    for _ in range(80):
        decision = pace.step(in_shares(pace.threads, pace.way.shares == better))
        decisions += [decision] if decision is not None else []
    assert [decision.way for decision in decisions] == [Way(most, better)]
    assert {Way(most, True), Way(most, False)} <= set(decisions[0].seconds)


def test_one_thread_has_no_shares() -> None:
    pace = Pace(4, shares=True)
    train(pace, busy, 80)
    assert pace.way == Way(1)


def test_a_resumed_run_keeps_its_way_where_it_can() -> None:
    assert Pace(2, Way(2, shares=True), shares=True).way == Way(2, shares=True)
    assert Pace(2, Way(2), shares=True).way == Way(2)
    assert Pace(2, Way(2, shares=True)).way == Way(2)


def test_one_core_has_nothing_to_try() -> None:
    pace = Pace(1)
    assert train(pace, busy, 100) == []
    assert pace.threads == 1


def test_words() -> None:
    words = Decision(Way(1), {Way(2): 0.5, Way(1): 0.1923}, True).describe()
    assert words == "1 thread: a step takes 0.192 s with 1, 0.5 s with 2"


def test_words_of_shares() -> None:
    words = Decision(Way(2, True), {Way(2, True): 0.3, Way(2): 0.4, Way(1): 0.5}, True).describe()
    assert words == (
        "2 threads, each with its share of the batch: a step takes 0.3 s with 2 shares, 0.5 s with "
        "1, 0.4 s with 2"
    )


class Steps:
    """A run whose steps take as long as its machine says."""

    def __init__(self, folder: Path, machine: Machine, start: int = 0, before: int = 0) -> None:
        self.now, self.used, self.machine = 0.0, [2], machine
        self.screen = SimpleNamespace(lines=[])
        self.screen.line = self.screen.lines.append
        training: Any = SimpleNamespace(screen=self.screen, steps_before=before)
        self.hook = ThreadHook(2, folder, training, lambda: self.now, self.used.append)
        self.task = SimpleNamespace(iteration=start, train=True, share_out=lambda threads: None)
        self.task.base_model = SimpleNamespace(trunk=None)
        self.hook.on_start(self.task)

    def train(self, steps: int) -> None:
        self.hook.on_phase_start(self.task)
        for _ in range(steps):
            self.now += self.machine(self.used[-1])
            self.task.iteration += 1
            self.hook.on_step(self.task)


def test_a_run_changes_its_threads_and_says_so(tmp_path: Path) -> None:
    run = Steps(tmp_path, busy)
    run.train(30)
    assert run.used == [2, 2, 1]
    assert run.screen.lines == ["1 thread: a step takes 0.2 s with 1, 0.6 s with 2"]
    (line,) = (RunFolder(tmp_path).threads).read_text().splitlines()
    entry = json.loads(line)
    assert entry["threads"] == 1
    assert entry["seconds"] == pytest.approx({"2": 0.6, "1": 0.2})


def test_what_stays_is_recorded_and_not_said(tmp_path: Path) -> None:
    run = Steps(tmp_path, quiet)
    run.train(30)
    assert run.screen.lines == []
    assert threads_at(tmp_path, 30) == [2]


def test_tests_and_pauses_are_not_timed(tmp_path: Path) -> None:
    run = Steps(tmp_path, quiet)
    for _ in range(10):
        run.train(3)
        run.task.train = False
        run.now += 100
        run.hook.on_step(run.task)
        run.task.train = True
    entry = json.loads((RunFolder(tmp_path).threads).read_text())
    assert max(entry["seconds"].values()) < 1


def threads_at(folder: Path, step: int) -> list[int]:
    return [entry["threads"] for entry in read_decisions(RunFolder(folder).threads, step)]


def test_a_resumed_run_trains_as_its_checkpoint_was(tmp_path: Path) -> None:
    lines = ['{"step": 12, "threads": 1}', "damage", "3", '{"step": Infinity, "threads": 2}']
    lines += ['{"step": 90, "threads": 2}']
    (RunFolder(tmp_path).threads).write_text("\n".join([*lines, '{"step": 95, "threads": -1}']))
    found = [threads_at(tmp_path, step) for step in (11, 12, 89, 90, 100)]
    assert found == [[], [1], [1], [1, 2], [1, 2]]
    assert threads_at(tmp_path / "none", 5) == []
    resumed = Steps(tmp_path, quiet, start=10, before=10)  # the batch was changed since
    resumed.train(20)
    assert set(resumed.used[1:]) == {1}
    # What was decided after that checkpoint belongs to steps that are gone.
    assert threads_at(tmp_path, 100) == [1]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    run = Steps(tmp_path / "gone", busy)
    run.train(30)
    assert run.used[-1] == 1


@pytest.mark.parametrize(
    ("changes", "deterministic", "hooks"),
    [
        ({}, False, 1),
        ({}, True, 0),
        ({"threads_given": True}, False, 0),
        ({"threads": 1}, False, 0),
        ({"device": "cuda"}, False, 0),
        ({"processes": 2}, False, 0),
    ],
)
def test_which_runs_choose(
    tmp_path: Path, changes: dict[str, Any], deterministic: bool, hooks: int
) -> None:
    placement = replace(Placement("local", "cpu", 1, 1, 2, 0), **changes)
    training: Any = SimpleNamespace(screen=None, steps_before=0)
    assert len(thread_hooks(placement, deterministic, training, tmp_path)) == hooks
