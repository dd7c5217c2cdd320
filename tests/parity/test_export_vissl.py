"""VISSL 0.1.6's own ConViT and ours: the same outputs, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from convit_ssl.adapters.vissl_trunk import build_vissl_trunk
from convit_ssl.cli.vissl_trunk import vissl_difference
from convit_ssl.export import load_trunk
from convit_ssl.export.audit import audit_trunk
from convit_ssl.export.keys import to_vissl
from convit_ssl.export.save import save_trunk
from convit_ssl.export.timm_target import load_into_timm
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models import ConViT, ConViTConfig
from tests.quick_run import Run


def sizes(head_dim: int) -> ConViTConfig:
    """48 channels per head as in the paper, or 64 as in VISSL's experiments."""
    return ConViTConfig(
        img_size=32, patch_size=8, num_classes=0, embed_dim=4 * head_dim, depth=4, num_heads=4,
        num_gpsa_layers=3,
    )  # fmt: skip


def vissl_model(head_dim: int, trained: bool) -> nn.Module:
    torch.manual_seed(head_dim)
    model = build_vissl_trunk("convit", sizes(head_dim)).eval()
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def vissl_checkpoint(student: nn.Module, teacher: nn.Module) -> dict:
    """A phase checkpoint of VISSL's DINO."""
    model = {"trunk": student.state_dict(), "heads": {"0.mlp.weight": torch.ones(2)}}
    loss = {f"momentum_teacher.trunk.{k}": v for k, v in teacher.state_dict().items()}
    loss |= {"momentum_teacher.heads.0.mlp.weight": torch.ones(2), "center": torch.zeros(2)}
    return {
        "phase_idx": 3,
        "iteration": 12,
        "loss": loss,
        "iteration_num": 12,
        "train_phase_idx": 3,
        "classy_state_dict": {
            "train": True,
            "base_model": {"model": model, "meta_archs": None},
            "optim": {"optim": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        },
    }


@torch.no_grad()
@pytest.mark.parametrize(("head_dim", "trained"), [(48, True), (64, False), (64, True)])
def test_their_runs_become_ours(head_dim: int, trained: bool, tmp_path: Path) -> None:
    student, teacher = vissl_model(head_dim, trained), vissl_model(head_dim, trained)
    with torch.no_grad():
        teacher.norm.bias.add_(1)  # type: ignore[operator,union-attr]
    path = tmp_path / "model_phase3.torch"
    torch.save(vissl_checkpoint(student, teacher), path)
    x = torch.randn(3, 3, 32, 32)
    for weights, theirs in (("student", student), ("teacher", teacher)):
        ours = load_trunk(path, weights=weights)
        assert ours.provenance["layout"] == "vissl"
        assert ours.config.num_heads == 4
        assert float((ours(x) - theirs(x, None)[0]).abs().max()) < 1e-5
        assert vissl_difference(ours).value < 1e-5
    assert "loss.center" in ours.provenance["not_loaded"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["convit_finetune", "convit_dino"])
def test_their_run_is_trained_on_to_the_end(experiment: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model_phase3.torch"
    torch.save(vissl_checkpoint(vissl_model(48, True), vissl_model(48, True)), path)
    run = Run(tmp_path)
    words = f"""config={experiment} data=digits run=cpu crops.global_size=32 optim.epochs=1
        optim.batch_size=100 optim.lr=1e-9 run.threads=1 run.precision=fp32 run.tensorboard=false
        run.name=run run.root={tmp_path} weights={path}"""
    run.arguments = [*words.split(), *(["crops.local_count=0"] if "dino" in experiment else [])]
    assert run.complete() == 0, run.text()
    # At next to no rate what comes out is what went in.
    before, after = load_trunk(path), load_trunk(run.folder)
    assert after.config.num_heads == 4 and after.config.patch_size == 8
    for key, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[key], value, rtol=0, atol=1e-4)


@torch.no_grad()
def test_ours_run_in_vissl(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = ConViT(sizes(64)).eval()
    export_trunk(ours, ["vissl"], tmp_path, name="trunk")
    content = torch.load(tmp_path / "trunk_vissl.torch", weights_only=True)
    theirs = build_vissl_trunk("convit", ours.config).eval()
    theirs.load_state_dict(content["classy_state_dict"]["base_model"]["model"]["trunk"])
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    x = torch.randn(3, 3, 32, 32)
    assert float((ours(x) - theirs(x, None)[0]).abs().max()) < 1e-5


@torch.no_grad()
def test_round_trip_through_everyone(tmp_path: Path) -> None:
    """Ours, official file, timm, VISSL, ours: bit-equal."""
    torch.manual_seed(1)
    ours = ConViT(sizes(48)).eval()
    save_trunk(ours, tmp_path / "official.pth")
    official = torch.load(tmp_path / "official.pth", weights_only=True)
    in_timm = load_into_timm(ours.config, official, (32, 32))
    assert type(in_timm) is timm.models.convit.ConVit
    theirs = build_vissl_trunk("convit", ours.config).eval()
    theirs.load_state_dict(to_vissl(dict(in_timm.state_dict())), strict=True)
    torch.save({"module.trunk." + k: v for k, v in theirs.state_dict().items()}, tmp_path / "v.pth")
    back = load_trunk(tmp_path / "v.pth")
    for key, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_their_init_is_found_out() -> None:
    """VISSL draws new weights over its convolutional init: ||v - I|| = 26.6 at width 576."""
    from convit_ssl.cli.vissl_trunk import vissl_trunk_by_name

    report = audit_trunk(vissl_trunk_by_name("convit"))
    assert {layer.state for layer in report.layers} == {"missing"}
    assert report.layers[0].identity_distance == pytest.approx(26.6, abs=0.2)
    mean = sum(sum(layer.distances) / 9 for layer in report.layers) / 10
    assert 6 < mean < 8
    ours = audit_trunk(vissl_trunk_by_name("convit_ssl/convit_nano"))
    assert {layer.state for layer in ours.layers} == {"initial"}
    assert ours.problems == []
