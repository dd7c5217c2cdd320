"""Weights, gradients, optimiser and teacher in shares (FSDP2), in two real processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.process_end import end_process, leave_group
from tests import quick_run
from tests.quick_run import Run

PACED = Path(__file__).with_name("recording_run.py")
TWO = "run.processes=2"
METHODS = {
    "convit_dino": ("optim.accumulate=2", "watch.every=1"),
    "convit_simclr": ("optim.name=lars",),
    "convit_moco_v3": ("method.hidden_dim=32", "method.out_dim=16"),
    # Its head shifts nothing but the mean that batch norm takes away: the gradient of the trunk's
    # last bias is rounding alone, which AdamW would make as large as any other.
    "convit_swav": (
        "method.hidden_dim=32", "method.prototypes=32", "optim.name=sgd",
        "method.queue_length=150", "method.queue_start_epoch=1",
    ),
    "convit_supervised": (),
}  # fmt: skip


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


class Model(nn.Module):
    """A trunk and a head, as VISSL has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = ConViT(
            ConViTConfig(img_size=8, patch_size=2, num_classes=0, embed_dim=32, depth=3,
                         num_heads=4, num_gpsa_layers=2)
        )  # fmt: skip
        self.heads = nn.ModuleList([nn.Linear(32, 8)])


def hold_a_share(rank: int, meeting: str) -> None:
    """One of two processes: half of everything is here, and the whole can be had."""
    from convit_ssl.adapters.sharding import shard_models, whole, whole_trunk

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model, plain = Model(), Model()
    shares = shard_models(model, None, "cpu", "fp32")
    held = sum(share.to_local().numel() for share in shares.values())  # type: ignore[attr-defined]
    total = sum(parameter.numel() for parameter in plain.parameters())
    assert isinstance(model.trunk, FSDPModule) and abs(held / total - 0.5) < 0.02, (held, total)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model.trunk(images), plain.trunk(images))
    torch.testing.assert_close(whole_trunk(model.trunk)(images), plain.trunk(images))
    state = whole(model.state_dict())
    for key, value in plain.state_dict().items():
        assert torch.equal(state[key], value) if rank == 0 else state[key] is None, key
    leave_group()
    end_process(0)


def test_each_process_holds_its_share(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(hold_a_share, (str(tmp_path / "meeting"),), nprocs=2)
