"""Who decides how many threads there are."""

from __future__ import annotations

import pytest

from convit_ssl.engines.launch.threads import Threads, choose_threads


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (3, {"OMP_NUM_THREADS": "1"}, Threads(3, "run.threads", True)),
        (None, {"OMP_NUM_THREADS": "1"}, Threads(1, "OMP_NUM_THREADS=1", True)),
        (None, {"OMP_NUM_THREADS": "4,2"}, Threads(4, "OMP_NUM_THREADS=4,2", True)),
        (
            None,
            {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "2"},
            Threads(2, "MKL_NUM_THREADS=2", True),
        ),
        (None, {"OMP_NUM_THREADS": "many"}, Threads(8, "all cores", False)),
        (None, {"OMP_NUM_THREADS": "0"}, Threads(8, "all cores", False)),
        (None, {}, Threads(8, "all cores", False)),
    ],
)
def test_who_wins(given: int | None, environment: dict[str, str], expected: Threads) -> None:
    assert choose_threads(given, "cpu", 1, 8, "all cores", environment) == expected


def test_processes_share_the_cores() -> None:
    assert choose_threads(None, "cpu", 3, 8, "all cores", {}).count == 2
    assert choose_threads(None, "cpu", 9, 8, "all cores", {}).count == 1
    assert choose_threads(None, "cuda", 2, 8, "all cores", {}).count == 2


def test_what_torchrun_sets_is_named() -> None:
    environment = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x"}
    assert "torchrun sets by default" in choose_threads(None, "cpu", 2, 8, "", environment).why
