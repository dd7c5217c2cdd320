"""The optimiser that VISSL really builds: what decays, and at what rate each part learns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from classy_vision.optim.param_scheduler import UpdateInterval

from convit_ssl.adapters.muon import MuonAndAdamW
from convit_ssl.adapters.schedulers import WarmupCosine

BuildTask = Callable[..., Any]
SMALL = ("trunk.patch_size=4", "crops.global_size=8")
HEAD = ("method.hidden_dim=32", "method.bottleneck_dim=16", "method.out_dim=64")


def rates(task: Any, key: str, where: float = 0.0) -> dict[str, float]:
    """A setting of each parameter by name, as the train step sets it at a point of the run."""
    optimizer = task.optimizer
    optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.STEP))
    names = {id(p): name for name, p in task.base_model.named_parameters()}
    groups = optimizer.optimizer.param_groups
    return {names[id(p)]: float(group[key]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("experiment", ["convit_dino", "convit_supervised"])
def test_what_decays_is_what_decays_in_the_release(build_task: BuildTask, experiment: str) -> None:
    task = build_task(experiment, *SMALL, *(HEAD if experiment == "convit_dino" else ()))
    decay = rates(task, "weight_decay")
    assert decay.keys() == {n for n, p in task.base_model.named_parameters() if p.requires_grad}
    kinds = ("gating_param", "pos_embed", "cls_token", "norm1.weight", "norm2.bias", "proj.bias")
    for kind in kinds:
        found = [value for name, value in decay.items() if name.endswith(kind)]
        assert found, kind
        assert set(found) == {0.0}, kind
    weights = ("pos_proj.weight", "qk.weight", "v.weight", "qkv.weight", "fc1.weight")
    for kind in (*weights, "patch_embed.proj.weight"):
        found = [value for name, value in decay.items() if name.endswith(kind)]
        assert found, kind
        assert set(found) == {float(task.options.optim.weight_decay)}, kind
    assert {name for name, value in decay.items() if value and name.endswith("bias")} == set()


def test_layer_decay_is_timms(build_task: BuildTask) -> None:
    import timm
    from timm.optim import param_groups_layer_decay

    # A rate that is one at the start, so that rates are the factors.
    options = ("optim.layer_decay=0.65", "optim.warmup_epochs=0", "optim.lr=4.0")
    task = build_task("convit_finetune", *SMALL, "trunk=convit_tiny", *options)
    ours = rates(task, "lr")
    theirs = timm.create_model("convit_tiny", num_classes=10)
    names = {id(p): name for name, p in theirs.named_parameters()}
    expected = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(theirs, layer_decay=0.65)
        for p in group["params"]
    }
    assert len(ours) == len(expected)
    for name, factor in expected.items():
        if name.startswith("norm."):
            factor = 1.0  # with the head, as in MAE's and BEiT's code; timm: with the last block
        own = name.replace("head.", "heads.0.") if name.startswith("head.") else f"trunk.{name}"
        assert ours[own] == pytest.approx(factor, rel=1e-6), name


def test_each_probe_learns_at_its_own_rate(build_task: BuildTask) -> None:
    grid = "method.learning_rates=[0.001,0.1]"
    depth = ("trunk.depth=4", "trunk.num_gpsa_layers=2")
    task = build_task("convit_linear", *SMALL, *depth, grid, "optim.batch_size=128")
    found = rates(task, "lr")
    assert len(task.base_model.heads) == 4
    expected = {
        f"heads.{head}.classifiers.{index}.{kind}": rate * 128 / 256
        for head in range(4)
        for index, rate in enumerate((0.001, 0.1))
        for kind in ("weight", "bias")
    }
    assert found == pytest.approx(expected)
    assert set(rates(task, "weight_decay").values()) == {0.0}


def test_features_without_class_tokens_are_left_out_of_the_probes(build_task: BuildTask) -> None:
    depth = ("trunk.depth=3", "trunk.num_gpsa_layers=2")
    task = build_task("convit_linear", *SMALL, *depth)
    # The class token of the last block, and that beside the mean of the patches.
    assert [head.norm.num_features for head in task.base_model.heads] == [128, 256]
    with torch.no_grad():
        outputs = task.base_model.eval()(torch.zeros(2, 3, 8, 8))
    assert [tuple(output.shape) for output in outputs] == [(2, 13, 10)] * 2


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "lars"])
def test_optimisers_are_made_and_step(build_task: BuildTask, name: str) -> None:
    task = build_task("convit_dino", *SMALL, *HEAD, f"optim={name}")
    rates(task, "lr", 0.5)
    parameter = task.base_model.trunk.patch_embed.proj.weight
    before = parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    task.optimizer.optimizer.step()
    assert not torch.equal(before, parameter)


def test_schedule_is_linear_then_half_a_cosine() -> None:
    schedule = WarmupCosine(1.0, 0.1, num_epochs=10, start_value=0.2, warmup_epochs=2)
    values = [schedule(where) for where in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert values == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])
    assert schedule.scaled(2.0)(0.6) == pytest.approx(1.1)
    assert WarmupCosine(0.04, 0.4, num_epochs=10)(0.5) == pytest.approx(0.22)


def test_muon_steps_the_matrices_of_the_blocks(build_task: BuildTask) -> None:
    task = build_task("convit_simclr", *SMALL, "method.hidden_dim=16", "optim=muon")
    groups = task.optimizer.optimizer.param_groups
    by_muon = {p for group in groups if group.get("matrices") for p in group["params"]}
    names = {name for name, p in task.base_model.named_parameters() if p in by_muon}
    assert all(".blocks." in name and name.endswith(".weight") for name in names)
    last = {name.split(".blocks.")[1].partition(".")[2] for name in names}
    assert last >= {"attn.qk.weight", "attn.v.weight", "attn.proj.weight", "mlp.fc1.weight"}
    assert not any("pos_proj" in name or "norm" in name for name in names)
    learned = {p for p in task.base_model.parameters() if p.requires_grad}
    assert {p for group in groups for p in group["params"]} == learned


def test_what_muon_leaves_is_stepped_as_by_adamw(build_task: BuildTask) -> None:
    stepped = []
    for name in ("adamw", "muon"):
        task = build_task("convit_simclr", *SMALL, "method.hidden_dim=16", f"optim={name}")
        rates(task, "lr", 0.5)
        for number, (key, parameter) in enumerate(sorted(task.base_model.named_parameters())):
            if key.endswith("bias") or "patch_embed" in key:
                generator = torch.Generator().manual_seed(number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        task.optimizer.optimizer.step()
        stepped.append({k: p.detach().clone() for k, p in task.base_model.named_parameters()})
    for key, value in stepped[0].items():
        assert torch.equal(stepped[1][key], value), key


def test_muon_resumes_where_it_was() -> None:
    def stepped(optimizer: torch.optim.Optimizer, times: range) -> torch.Tensor:
        weight = optimizer.param_groups[0]["params"][0]
        for number in times:
            weight.grad = torch.randn(32, 16, generator=torch.Generator().manual_seed(number))
            optimizer.step()
        return weight.detach().clone()

    def made() -> MuonAndAdamW:
        weight = torch.nn.Parameter(torch.eye(32, 16))
        group = {"params": [weight], "lr": 0.1, "weight_decay": 0.1, "matrices": True}
        return MuonAndAdamW([group], (0.9, 0.999))

    whole = stepped(made(), range(4))
    first, second = made(), made()
    before = stepped(first, range(2))
    with torch.no_grad():
        second.param_groups[0]["params"][0].copy_(before)
    second.load_state_dict(first.state_dict())
    assert torch.equal(stepped(second, range(2, 4)), whole)


def test_a_step_of_muon_is_orthogonal() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 16))
    optimizer = MuonAndAdamW(
        [{"params": [weight], "lr": 1.0, "weight_decay": 0.0, "matrices": True}], (0.9, 0.999)
    )
    weight.grad = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach()) / (0.2 * 64**0.5)
    assert values.min() > 0.6 and values.max() < 1.25


def test_timm_is_imported_only_for_its_optimisers() -> None:
    code = "import sys, convit_ssl.adapters.optimizers; sys.exit('timm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
