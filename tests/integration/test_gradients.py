"""Gradients that two processes exchange in half the bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quick_run import Run


@pytest.mark.slow
def test_gradients_in_bf16_train_alike(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        run = Run(
            tmp_path / precision, "optim.epochs=3", "run.processes=2", f"run.gradients={precision}"
        )
        assert run.complete() == 0, run.text()
        losses[precision] = run.losses()
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
