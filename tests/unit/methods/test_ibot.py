"""iBOT: the loss of the formula, masks as published, and hidden patches in the trunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convit_ssl.methods import IBOT, Hidden, IBOTHead, IBOTOptions, Progress, Run, draw_masks
from convit_ssl.models import ConViT, ConViTConfig
from tests.golden.tiny import counted_batches, tiny_task


def made(crops: int = 4, images: int = 3, grid: int = 9, width: int = 7) -> dict[str, Any]:
    """Outputs of student and teacher for class tokens and for all patches of two large crops."""
    torch.manual_seed(0)
    masks = torch.rand(2 * images, grid) < 0.4
    masks[1] = False  # a crop without any
    return {
        "masks": masks,
        "student": torch.randn(crops * images, width).requires_grad_(),
        "student_patches": torch.randn(2 * images, grid, width).requires_grad_(),
        "teacher": torch.randn(2 * images, width),
        "teacher_patches": torch.randn(2 * images, grid, width),
        "centres": torch.randn(2, width),
    }


def published(of: dict[str, Any], crops: int) -> tuple[Tensor, Tensor]:
    """Equations 1 and 2 of the paper, crop by crop."""
    students = (of["student"] / 0.1).chunk(crops)
    teachers = ((of["teacher"] - of["centres"][0]) / 0.07).softmax(-1).chunk(2)
    pairs = [
        -(t * s.log_softmax(-1)).sum(-1).mean()
        for i, t in enumerate(teachers)
        for j, s in enumerate(students)
        if i != j
    ]
    targets = ((of["teacher_patches"] - of["centres"][1]) / 0.05).softmax(-1)
    each = -(targets * (of["student_patches"] / 0.1).log_softmax(-1)).sum(-1)
    hidden = of["masks"].float()
    in_crop = (each * hidden).sum(1) / hidden.sum(1).clamp(min=1)
    return torch.stack(pairs).mean(), torch.stack([c.mean() for c in in_crop.chunk(2)]).mean()


def test_value_gradient_and_centres_are_those_of_the_formula() -> None:
    of, crops = made(), 4
    options = IBOTOptions(out_dim=7, patch_temperature=0.05, warmup_patch_temperature=0.05)
    loss = IBOT(options, Run(2, crops - 2, epochs=1)).train()
    loss.dino.center.copy_(of["centres"][:1])
    loss.patches.center.copy_(of["centres"][1:])
    hidden = loss._hidden = Hidden.of(of["masks"].numpy(), torch.device("cpu"))
    loss._patch_temperature, loss._teacher_temperature = 0.05, 0.07
    loss._targets = of["teacher"]
    patches = of["teacher_patches"].flatten(0, 1)
    loss._patch_outputs = torch.cat((patches[hidden.places], patches.mean(0, keepdim=True)))
    chosen = of["student_patches"].flatten(0, 1)[hidden.places]
    found = loss(torch.cat((of["student"], chosen)), torch.zeros(3))
    whole, parts = published(of, crops)
    torch.testing.assert_close(found, whole + parts)
    leaves = [of["student"], of["student_patches"]]
    for own, expected in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(whole + parts, leaves), strict=True
    ):
        torch.testing.assert_close(own, expected)
    mean = of["teacher_patches"].mean((0, 1))
    torch.testing.assert_close(loss.patches.center[0], 0.9 * of["centres"][1] + 0.1 * mean)


@pytest.mark.parametrize("use_bn", [False, True])
def test_the_head_gives_class_tokens_then_hidden_patches_then_the_mean(use_bn: bool) -> None:
    head = IBOTHead(5, 7, 6, 4, use_bn=use_bn).eval()
    masks = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=bool)
    head.hidden = Hidden.of(masks, torch.device("cpu"))
    tokens = torch.randn(3, 1 + 4, 5)  # two large crops and a small one
    plain = head(tokens.flatten(0, 1)).unflatten(0, (3, 5))
    expected = torch.cat((plain[:, 0], plain[0, [1, 4]], plain[1, [2]]))
    torch.testing.assert_close(head(tokens), expected)
    head.of_teacher = True
    mean = plain[:2, 1:].flatten(0, 1).mean(0, keepdim=True)
    torch.testing.assert_close(head(tokens), torch.cat((expected, mean)))


@pytest.mark.parametrize("shape", ["block", "random"])
def test_masks_hide_as_much_as_asked(shape: str) -> None:
    options = IBOTOptions(mask_shape=shape)
    masks = draw_masks(np.random.default_rng(0), 400, (14, 14), options)
    shares = masks.mean(1)
    assert masks.shape == (400, 196) and 0.4 < (shares > 0).mean() < 0.6
    assert shares.max() <= 0.5 + 1e-9
    assert 0.25 < shares[shares > 0].mean() < 0.31
    again = draw_masks(np.random.default_rng(0), 400, (14, 14), options)
    assert np.array_equal(masks, again)
    if shape == "block":  # a hidden patch has hidden neighbours more often than chance
        maps = masks[shares > 0].reshape(-1, 14, 14)
        assert (maps[:, 1:] & maps[:, :-1]).sum() / maps[:, 1:].sum() > 0.6


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 2), (3, 5)])
def test_something_is_hidden_on_the_smallest_grids(grid: tuple[int, int]) -> None:
    for seed in range(20):
        masks = draw_masks(np.random.default_rng(seed), 2, grid, IBOTOptions())
        assert masks.sum() >= 2 or masks.all()


def trunk() -> ConViT:
    config = ConViTConfig(img_size=8, patch_size=2, num_classes=0, embed_dim=16, depth=3,
                          num_heads=4, num_gpsa_layers=2)  # fmt: skip
    network = ConViT(config)
    network.mask_token = torch.nn.Parameter(torch.randn(1, 1, 16))
    return network


def test_what_is_hidden_does_not_matter_and_the_grid_stays_whole() -> None:
    network, images = trunk().train(), torch.randn(2, 3, 8, 8)
    network.hidden_patches = torch.zeros(2, 16, dtype=torch.bool)
    network.hidden_patches[0, 5] = True
    first = network.forward_features(images)
    assert first.shape == (2, 17, 16)
    changed = images.clone()
    changed[:, :, 2:4, 2:4] = 9.0  # patch 5 of a grid of 4 x 4
    second = network.forward_features(changed)
    torch.testing.assert_close(second[0], first[0])
    assert not torch.allclose(second[1], first[1])
    assert not torch.allclose(network.eval().forward_features(images)[0], first[0])


def test_small_crops_are_not_hidden() -> None:
    network = trunk().train()
    images = torch.randn(3, 3, 4, 4)
    plain = network.forward_features(images)
    network.hidden_patches = torch.ones(2, 16, dtype=torch.bool)
    torch.testing.assert_close(network.forward_features(images), plain)


def test_steps_differ_in_what_is_hidden_and_the_teacher_sees_everything() -> None:
    task = tiny_task("convit_ibot")
    views = next(counted_batches(task))[0]
    task.base_loss.train()
    found = []
    for _ in range(2):
        task.base_loss.on_views(task.base_model, views, Progress(0, 10))
        found.append(task.base_model.trunk.hidden_patches.clone())
    assert found[0].shape == (12, 4) and not torch.equal(*found)
    assert task.base_loss.teacher.trunk.hidden_patches is None
    assert task.base_model.trunk.mask_token.requires_grad


def test_masks_with_nothing_hidden_in_a_crop_weigh_nothing() -> None:
    masks = np.array([[0, 0], [1, 1]], dtype=bool)
    hidden = Hidden.of(masks, torch.device("cpu"))
    assert hidden.places.tolist() == [2, 3] and hidden.weights.tolist() == [0.25, 0.25]
