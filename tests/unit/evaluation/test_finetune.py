"""Layer decay equals timm's; hard distillation is DeiT's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convit_ssl.evaluation.finetune import (
    decays,
    layer_of,
    parameter_groups,
)
from convit_ssl.methods.supervised import HardDistillation
from convit_ssl.models import ConViT, ConViTConfig, convit_tiny


def test_layer_decay_is_timms() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    theirs = timm.create_model("convit_tiny", num_classes=7)
    groups = param_groups_layer_decay(theirs, weight_decay=0.05, layer_decay=0.65)
    names = {parameter: name for name, parameter in theirs.named_parameters()}
    expected = {names[p]: g["lr_scale"] for g in groups for p in g["params"]}
    # timm counts the last norm to the last block; MAE, whose recipe this is, to the head.
    expected |= {"norm.weight": 1.0, "norm.bias": 1.0}
    ours = parameter_groups(theirs, depth=12, learning_rate=1.0, layer_decay=0.65)
    got = {name: group["lr_scale"] for group in ours for name in group["names"]}
    assert got.keys() == expected.keys()
    for name, scale in expected.items():
        assert got[name] == pytest.approx(scale), name


def test_weight_decay_is_the_released_recipes() -> None:
    model = convit_tiny(num_classes=5)
    exempt = {name for name, p in model.named_parameters() if not decays(name, p)}
    assert "blocks.0.attn.pos_proj.weight" not in exempt
    assert {"pos_embed", "cls_token", "blocks.3.attn.gating_param", "norm.weight"} <= exempt
    assert all(p.dim() > 1 for name, p in model.named_parameters() if name not in exempt)


def test_groups_hold_each_parameter_once_under_any_prefix(model: ConViT) -> None:
    wrapped = nn.ModuleDict({"trunk": model, "heads": nn.Linear(12, 3)})
    model.patch_embed.requires_grad_(False)
    groups = parameter_groups(wrapped, 4, learning_rate=0.1, layer_decay=0.5)
    found = [name for group in groups for name in group["names"]]
    assert sorted(found) == sorted(n for n, p in wrapped.named_parameters() if p.requires_grad)
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    assert rates["heads.weight"] == rates["trunk.norm.bias"] == 0.1
    assert rates["trunk.blocks.3.mlp.fc1.weight"] == pytest.approx(0.05)
    assert rates["trunk.pos_embed"] == pytest.approx(0.1 * 0.5**5)
    assert layer_of("module.trunk.blocks.11.norm1.weight", 12) == 12
    torch.optim.AdamW(groups)


def small_classifier(classes: int) -> ConViT:
    config = ConViTConfig(
        img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=4, num_gpsa_layers=1,
        num_classes=classes, drop_rate=0.5,
    )  # fmt: skip
    return ConViT(config)


def test_hard_distillation_is_the_formula() -> None:
    teacher, student = small_classifier(3), small_classifier(3)
    distil = HardDistillation(teacher, weight=0.5)
    images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    logits = student.eval()(images)
    loss = distil(logits, labels, images)
    decided = teacher(images).argmax(dim=1)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits, decided)) / 2
    torch.testing.assert_close(loss, expected)
    soft = F.one_hot(labels, 3).float()
    torch.testing.assert_close(distil(logits, soft, images), expected)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training
    assert list(distil.parameters()) == []
    assert list(distil.train().state_dict()) == []
    assert not teacher.training


def test_a_student_learns_from_the_teacher_alone() -> None:
    teacher = small_classifier(3)
    with torch.no_grad():
        teacher.head.weight.mul_(50)
    student = small_classifier(3).eval()
    images = torch.randn(40, 3, 8, 8)
    distil = HardDistillation(teacher, weight=1.0)
    optimiser = torch.optim.AdamW(student.parameters(), lr=5e-3)
    for _ in range(60):
        loss = distil(student(images), torch.zeros(40, dtype=torch.long), images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    agreement = (student(images).argmax(1) == teacher(images).argmax(1)).float().mean()
    assert agreement > 0.9


def test_other_classes_are_refused() -> None:
    teacher = small_classifier(9)
    with torch.no_grad():
        teacher.head.bias[8] = 100
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="predicted class 8, but the student has 3"):
        HardDistillation(teacher)(torch.randn(2, 3), torch.tensor([0, 1]), images)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        HardDistillation(teacher, weight=2.0)
