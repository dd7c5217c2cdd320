"""The frozen patch projection."""

import math

import pytest
import torch
from torch import nn

from convit_ssl.methods import freeze_patch_projection
from convit_ssl.models import create_model


@pytest.mark.parametrize("random_init", [True, False])
def test_only_the_patch_projection_is_frozen(random_init: bool) -> None:
    trunk = create_model("convit_nano", img_size=16, patch_size=4, num_classes=0)
    before = trunk.patch_embed.proj.weight.detach().clone()
    names = freeze_patch_projection(trunk, random_init)
    assert names == ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    frozen = [name for name, p in trunk.named_parameters() if not p.requires_grad]
    assert frozen == names
    weight = trunk.patch_embed.proj.weight
    assert torch.equal(weight, before) is not random_init
    if random_init:
        bound = math.sqrt(6 / (3 * 4 * 4 + weight.shape[0]))
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no convolution patch_embed\.proj"):
        freeze_patch_projection(nn.Linear(2, 2))
