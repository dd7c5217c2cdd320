"""Twenty steps of each method give the losses they gave when the method was checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.make_goldens import EXPERIMENTS, FILE, PRODUCTS, golden_losses, tiny_run


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_losses_are_those_on_file(experiment: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, experiment)
    assert run.complete(**PRODUCTS) == 0, run.text()
    expected = json.loads(FILE.read_text())[experiment]
    assert [len(losses) for losses in expected.values()] == [2, 2]
    for kind, losses in golden_losses(run).items():
        assert losses == pytest.approx(expected[kind], rel=1e-4), (
            f"{kind}: if that is meant, python -m tests.golden.make_goldens {experiment}"
        )
