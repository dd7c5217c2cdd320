"""The trunk as VISSL builds it: the paper's initialisation, features by name, frozen parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from convit_ssl.models import ConViTConfig
from convit_ssl.models.gpsa import GPSA

BuildTask = Callable[..., Any]
SMALL = ("trunk.depth=4", "trunk.num_gpsa_layers=2", "trunk.patch_size=4", "crops.global_size=8")
HEAD = ("method.hidden_dim=32", "method.bottleneck_dim=16", "method.out_dim=64")


@pytest.fixture(scope="module")
def model(build_task: BuildTask) -> Any:
    return build_task("convit_dino", *SMALL, *HEAD, "crops.local_count=0").base_model.eval()


def paper_positions(num_heads: int, locality_strength: float) -> Tensor:
    """pos_proj.weight of the paper (section 3): head h attends around its own offset."""
    side = int(num_heads**0.5)
    centre = (side - 1) / 2 if side % 2 == 0 else side // 2
    weight = torch.zeros(num_heads, 3)
    for row in range(side):
        for column in range(side):
            head = row * side + column
            weight[head] = torch.tensor([2 * (column - centre), 2 * (row - centre), -1.0])
    return weight * locality_strength


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_assembled_trunk_starts_as_the_paper_has_it(
    build_task: BuildTask, strength: float
) -> None:
    option = f"trunk.locality_strength={strength}"
    trunk = build_task("convit_dino", *SMALL, *HEAD, option).base_model.trunk
    config = trunk.config
    layers = [module for module in trunk.modules() if isinstance(module, GPSA)]
    assert len(layers) == 2 == config.num_gpsa_layers
    for layer in layers:
        assert torch.equal(layer.v.weight, torch.eye(config.embed_dim))
        assert torch.equal(layer.gating_param, torch.ones(config.num_heads))
        expected = paper_positions(config.num_heads, strength)
        offsets = layer.pos_proj.weight.detach()
        assert torch.equal(offsets[:, 2], expected[:, 2])
        # Which head takes which offset, and which axis comes first, is a matter of convention.
        assert {tuple(o) for o in offsets.tolist()} == {tuple(e) for e in expected.tolist()}


def test_the_teacher_starts_as_the_student(build_task: BuildTask) -> None:
    task = build_task("convit_dino", *SMALL, *HEAD)
    student, teacher = task.base_model.state_dict(), task.base_loss.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[key], teacher[key]) for key in student)
    assert not any(p.requires_grad for p in task.base_loss.teacher.parameters())


def test_features_by_vissls_names(model: Any) -> None:
    trunk = model.trunk
    images = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        tokens = trunk.forward_features(images)
        _, inside = trunk.forward_intermediates(images)
        normed = [trunk.norm(block) for block in inside.tokens]
        names = [
            "lastCLS", "concatCLS2", "meanPATCH", "blkPATCH0", "blkPATCH3", "blkCLS2", "lastMAP",
            "concatCLS2+meanPATCH",
        ]  # fmt: skip
        found = dict(zip(names, trunk(images, names), strict=True))
        (default,) = trunk(images)
    classes = torch.cat([normed[2][:, 0], normed[3][:, 0]], dim=-1)
    patches = tokens[:, 1:]
    expected = {
        "lastCLS": tokens[:, 0],
        "concatCLS2": classes,
        "meanPATCH": patches.mean(dim=1),
        "blkPATCH0": normed[0].mean(dim=1),
        "blkPATCH3": normed[3][:, 1:].mean(dim=1),
        "blkCLS2": normed[2][:, 0],
        "lastMAP": patches.transpose(1, 2).reshape(2, -1, 2, 3),
        "concatCLS2+meanPATCH": torch.cat([classes, patches.mean(dim=1)], dim=-1),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    torch.testing.assert_close(default, tokens[:, 0])


@pytest.mark.parametrize("name", ["lastTOKEN", "blkPATCH4", "concatCLS5", "blkCLS", ""])
def test_unknown_features_are_refused(model: Any, name: str) -> None:
    with pytest.raises(ValueError, match="unknown feature"):
        model.trunk(torch.zeros(1, 3, 8, 8), [name])


@pytest.mark.parametrize("name", ["blkCLS1", "concatCLS3"])
def test_gpsa_blocks_have_no_class_token(model: Any, name: str) -> None:
    with pytest.raises(ValueError, match="block 1 is a GPSA block"):
        model.trunk(torch.zeros(1, 3, 8, 8), [name])


def test_crops_of_several_sizes_in_one_call_are_as_one_by_one(model: Any) -> None:
    crops = [torch.randn(2, 3, side, side) for side in (8, 8, 4, 12)]
    with torch.no_grad():
        (together,) = model(crops)
        alone = torch.cat([model([crop])[0] for crop in crops])
    torch.testing.assert_close(together, alone)


def test_frozen_parts_neither_learn_nor_reach_the_optimiser(build_task: BuildTask) -> None:
    frozen = ("trunk.freeze_patch_embed=true", "trunk.freeze_position=true")
    task = build_task("convit_dino", *SMALL, *HEAD, *frozen)
    held = {n for n, p in task.base_model.named_parameters() if not p.requires_grad}
    assert {n for n in held if "trunk." in n} == {
        *(f"trunk.patch_embed.proj.{kind}" for kind in ("weight", "bias")),
        *(f"trunk.blocks.{i}.attn.pos_proj.{kind}" for i in (0, 1) for kind in ("weight", "bias")),
    }
    groups = task.optimizer.optimizer.param_groups
    learned = {id(p) for group in groups for p in group["params"]}
    named = dict(task.base_model.named_parameters())
    assert learned == {id(p) for n, p in named.items() if n not in held}


def test_every_option_of_the_trunk_reaches_it(build_task) -> None:  # type: ignore[no-untyped-def]
    """An option that is taken and then ignored would be worse than none."""
    import dataclasses

    from convit_ssl.schema import TrunkOptions

    task = build_task("convit_dino")
    fields = {field.name for field in dataclasses.fields(ConViTConfig)}
    reached = {key.lower() for key in task.config.MODEL.TRUNK.CONVIT_SSL}
    assert {field.name for field in dataclasses.fields(TrunkOptions)} & fields <= reached


def test_positions_of_aligned_images_start_large(build_task) -> None:  # type: ignore[no-untyped-def]
    trunk = build_task("convit_dino", "trunk.pos_embed_std=5").base_model.trunk
    assert trunk.pos_embed.std().item() == pytest.approx(5, rel=0.1)
