"""The audit tells a convolutional init from a wiped one, and repairs what was never trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from convit_ssl.analysis import locality
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.audit import Audit, audit_trunk, repair_trunk
from convit_ssl.export.audit_text import audit_text
from convit_ssl.export.build import trunk_by_name
from convit_ssl.export.save import save_trunk
from convit_ssl.models import GPSA, ConViT, ConViTConfig


def wipe(model: ConViT) -> ConViT:
    """What VISSL does after building its ConViT."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
    return model


def states(report: Audit) -> set[str]:
    return {layer.state for layer in report.layers}


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_a_new_model_is_sound(strength: float, config: ConViTConfig) -> None:
    report = audit_trunk(ConViT(dataclasses.replace(config, locality_strength=strength)))
    assert report.problems == []
    assert states(report) == {"initial"}
    assert not report.trained
    layer = report.layers[0]
    assert layer.identity_distance == 0
    assert layer.square
    assert sorted(layer.centres)[0] == (-1, -1)  # type: ignore[type-var]
    torch.testing.assert_close(torch.tensor(layer.widths), torch.full((9,), (2 * strength) ** -0.5))
    assert "sound" in audit_text(report, heads=True)


def test_a_trained_model_is_sound(teacher: ConViT) -> None:
    report = audit_trunk(teacher)
    assert report.problems == []
    assert report.trained
    assert states(report) == {"trained"}


def test_mean_distances_are_those_of_the_analysis() -> None:
    model = ConViT(ConViTConfig(img_size=224, num_classes=0, depth=2, num_gpsa_layers=1))
    (layer,) = audit_trunk(model).layers
    gpsa = next(module for module in model.modules() if isinstance(module, GPSA))
    theirs = locality.mean_distance(gpsa.position_map((14, 14)), (14, 14))
    torch.testing.assert_close(torch.tensor(layer.distances), theirs.float(), rtol=1e-4, atol=1e-5)
    assert sum(layer.distances) / 9 == pytest.approx(1.26, abs=0.01)


def test_a_wiped_init_is_found_and_repaired(config: ConViTConfig, tmp_path: Path) -> None:
    model = wipe(ConViT(config))
    report = audit_trunk(model)
    assert states(report) == {"missing"}
    assert report.repairable == [0, 1]
    assert "convolutional init is missing in blocks 0, 1" in report.problems[0]
    assert repair_trunk(model) == [0, 1]
    save_trunk(model, tmp_path / "sound.safetensors")
    again = audit_trunk(load_trunk(tmp_path / "sound.safetensors"))
    assert again.problems == []
    assert states(again) == {"initial"}


def test_repair_leaves_trained_layers_alone(config: ConViTConfig) -> None:
    model = wipe(ConViT(config))
    with torch.no_grad():
        for parameter in model.blocks[1].parameters():
            parameter.add_(0.01)
    report = audit_trunk(model)
    assert [layer.state for layer in report.layers] == ["missing", "untraceable"]
    assert len(report.problems) == 2
    before = model.blocks[1].attn.v.weight.clone()  # type: ignore[union-attr]
    assert repair_trunk(model) == [0]
    assert torch.equal(model.blocks[1].attn.v.weight, before)  # type: ignore[union-attr]


def test_the_distance_told_is_that_of_the_blocks_named(config: ConViTConfig) -> None:
    model = ConViT(config)
    nn.init.trunc_normal_(model.blocks[1].attn.v.weight, std=0.02)  # type: ignore[union-attr,arg-type]
    nn.init.trunc_normal_(model.blocks[1].attn.pos_proj.weight, std=0.02)  # type: ignore[union-attr,arg-type]
    report = audit_trunk(model)
    assert [layer.state for layer in report.layers] == ["initial", "missing"]
    wanted = report.layers[1].identity_distance
    assert f"in block 1: v is random (||v - I|| = {wanted:.1f} instead of 0)" in report.problems[0]


def test_a_model_made_without_the_init_is_no_problem(config: ConViTConfig, tmp_path: Path) -> None:
    model = ConViT(dataclasses.replace(config, local_init=False))
    save_trunk(model, tmp_path / "random.safetensors")
    report = audit_trunk(load_trunk(tmp_path / "random.safetensors"))
    assert report.problems == []
    assert "as configured" in " ".join(report.notes)


def test_numbers_that_are_not_finite(teacher: ConViT) -> None:
    with torch.no_grad():
        teacher.blocks[0].attn.v.weight[0, 0] = float("nan")  # type: ignore[index,union-attr]
    report = audit_trunk(teacher)
    assert report.not_finite == ["blocks.0.attn.v.weight"]
    assert "not finite" in report.problems[0]


def test_without_gates_and_without_gpsa(config: ConViTConfig) -> None:
    report = audit_trunk(ConViT(dataclasses.replace(config, use_gating=False)))
    assert report.layers[0].gates is None
    assert report.problems == []
    plain = audit_trunk(ConViT(dataclasses.replace(config, num_gpsa_layers=0)))
    assert plain.layers == []
    assert "no GPSA layers" in audit_text(plain)


def test_trunks_by_name() -> None:
    assert states(audit_trunk(trunk_by_name("convit_nano"))) == {"initial"}
    assert states(audit_trunk(trunk_by_name("timm:convit_tiny"))) == {"initial"}
    with pytest.raises(UserError, match="unknown trunk 'convit_huge'"):
        trunk_by_name("convit_huge")
    with pytest.raises(UserError, match="timm:nothing"):
        trunk_by_name("timm:nothing")
