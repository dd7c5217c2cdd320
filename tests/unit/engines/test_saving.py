"""When the next checkpoint is due."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from convit_ssl.engines.saving import CheckpointHook
from convit_ssl.engines.signals import Agreement


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
    options = SimpleNamespace(run=SimpleNamespace(checkpoint_minutes=minutes))
    hook = CheckpointHook(options, tmp_path, {}, None, None, None)  # type: ignore[arg-type]
    hook.agreement.lag, hook.seconds_to_write = lag, seconds_to_write
    assert hook._interval() == pytest.approx(expected)


def test_the_time_between_decisions_is_known() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.decide(0, False)
        time.sleep(0.05)
    assert 0.05 <= agreement.lag < 5
