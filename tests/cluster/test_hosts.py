"""Two hosts under torchrun: a worker is killed, the cable is pulled, a host is lost and back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import two_hosts
from tests.cluster.conftest import EPOCHS
from tests.cluster.two_hosts import TwoHosts, run_on_hosts
from tests.quick_run import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


@pytest.fixture
def hosts() -> Iterator[None]:
    reason = two_hosts.missing()
    if reason:
        pytest.skip(reason)
    two_hosts.up()
    yield
    two_hosts.down()


@pytest.fixture
def pair(hosts: None, tmp_path: Path) -> Iterator[TwoHosts]:
    run = run_on_hosts(tmp_path, f"optim.epochs={EPOCHS}", "run.timeout_minutes=0.5")
    run.arguments.append("run.checkpoint_minutes=0.05")
    pair = TwoHosts(run, "2")
    yield pair
    pair.end()


def until(condition: Callable[[], bool], pair: TwoHosts, timeout: float = 600.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, pair.text()
        time.sleep(0.1)


def test_a_killed_worker_and_a_pulled_cable(pair: TwoHosts, undisturbed: list[float]) -> None:
    run = pair.run
    pair.start("hostA")
    pair.start("hostB")
    until(run.reached(20), pair)
    until(lambda: bool(run.saved()), pair)
    worker = run.beat(1)["pid"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: run.beat(1).get("pid") != worker and run.alive(1), pair)

    until(lambda: run.alive(0) and run.steps() >= max(run.saved()) + 5, pair)
    worker = run.beat(1)["pid"]
    two_hosts.cable(plugged=False)
    time.sleep(25)
    two_hosts.cable(plugged=True)
    assert pair.wait() == [0, 0], pair.text()
    assert run.losses() == undisturbed
    assert run.stray_files() == []


def test_a_host_is_lost_and_waited_for(pair: TwoHosts, undisturbed: list[float]) -> None:
    """With as many hosts as before, from the last checkpoint on, every loss is the same."""
    run = pair.run
    pair.start("hostA")
    pair.start("hostB")
    until(lambda: run.alive(0) and run.alive(1) and run.steps() >= 20, pair)
    until(lambda: bool(run.saved()), pair)
    pair.kill("hostB")
    until(lambda: not run.alive(0) and not run.alive(1), pair)  # the other one waits
    time.sleep(5)
    pair.start("hostB")
    assert pair.wait() == [0, 0], pair.text()
    assert run.losses() == undisturbed
    assert run.stray_files() == []


def test_a_host_goes_on_alone_until_the_other_is_back(pair: TwoHosts, tmp_path: Path) -> None:
    # Batch normalisation in the heads sees a process's own part of the batch; without it one host
    # computes what two do, but for rounding. KoLeo would make more of that: another nearest
    # neighbour is another gradient.
    plain = ["method.use_bn=false", "method.koleo_weight=0"]
    undisturbed = Run(tmp_path / "undisturbed", f"optim.epochs={EPOCHS}", *plain)
    assert undisturbed.complete() == 0, undisturbed.text()

    run = pair.run
    run.arguments.extend(plain)
    pair.nnodes = "1:2"
    pair.start("hostA")
    pair.start("hostB")
    until(lambda: run.alive(0) and run.alive(1) and run.steps() >= 20, pair)
    pair.kill("hostB")
    step = run.steps()
    until(lambda: run.steps() > step and run.beat(1) == {}, pair)  # alone
    pair.start("hostB")
    until(lambda: run.alive(1), pair)
    assert pair.wait() == [0, 0], pair.text()
    assert [line["epoch"] for line in run.epochs()] == list(range(1, EPOCHS + 1))
    assert run.losses() == pytest.approx(undisturbed.losses(), rel=1e-4)
    assert run.stray_files() == []
