"""Weights, gradients, optimiser and teacher in shares (FSDP2), in two real processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests import quick_run
from tests.quick_run import Run

PACED = Path(__file__).with_name("recording_run.py")
TWO = "run.processes=2"
METHODS = {
    "convit_dino": ("optim.accumulate=2", "watch.every=1"),
    "convit_simclr": ("optim.name=lars",),
    "convit_moco_v3": ("method.hidden_dim=32", "method.out_dim=16"),
    "convit_swav": ("method.hidden_dim=32", "method.prototypes=32"),
    "convit_supervised": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", METHODS)
def test_losses_equal_those_of_whole_copies(tmp_path: Path, experiment: str) -> None:
    options = (f"config={experiment}", "optim.epochs=3", TWO, *METHODS[experiment])
    losses, states = [], []
    for name, more in (("whole", ()), ("shares", ("run.fsdp=true",))):
        run = Run(tmp_path / name)
        if experiment != "convit_dino":
            run.arguments = [word for word in run.arguments if not word.startswith("method.")]
        run.arguments += [*options, *more]
        assert run.complete() == 0, run.text()
        losses.append(run.losses())
        states.append(torch.load(run.checkpoints / "last.torch", weights_only=True))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    whole, shares = (state["classy_state_dict"]["base_model"]["model"] for state in states)
    assert list(shares["trunk"]) == list(whole["trunk"])
    for key, expected in whole["trunk"].items():
        torch.testing.assert_close(shares["trunk"][key], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(True, True), (False, True), (True, False)])
def test_a_run_goes_on_with_shares_and_without(
    tmp_path: Path, before: bool, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_run, "TOOL", PACED)
    undisturbed = Run(tmp_path / "undisturbed", "optim.epochs=6", TWO, f"run.fsdp={after}")
    assert undisturbed.complete() == 0, undisturbed.text()

    run = Run(tmp_path / "stopped", "optim.epochs=6", TWO)
    run.start(f"run.fsdp={before}", PACE="0.2").until(run.reached(12))
    run.signal(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM, run.text()
    assert run.complete(f"run.fsdp={after}") == 0, run.text()
    if before == after:
        assert run.losses() == undisturbed.losses()
    else:
        assert run.losses() == pytest.approx(
            undisturbed.losses(), rel=1e-4
        )  # sums in another order
