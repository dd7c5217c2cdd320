"""Outputs of a small network with counted weights, pinned to the digits of the formula.

The numbers were made in double precision by the dense formula of
tests/parity/test_models_naive.py, not by the code that they test.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from convit_ssl.models import ConViT, ConViTConfig

GOLDEN = json.loads((Path(__file__).parent / "models.json").read_text())

# Sizes that share no factor, so that no two axes can be confused.
CONFIG = ConViTConfig(
    img_size=(15, 21), patch_size=3, in_chans=2, num_classes=7, embed_dim=22, depth=3,
    num_heads=11, num_gpsa_layers=2, mlp_ratio=1.5, local_init=False,
)  # fmt: skip


def counted(shape: torch.Size, start: int) -> Tensor:
    """Values in -0.5..0.5 that depend on the place alone."""
    count = torch.arange(start, start + shape.numel(), dtype=torch.float64)
    return ((count * 37 % 101) / 101 - 0.5).view(shape)


def counted_model(use_gating: bool) -> ConViT:
    model = ConViT(replace(CONFIG, use_gating=use_gating)).double()
    with torch.no_grad():
        for start, (_, parameter) in enumerate(sorted(model.named_parameters())):
            parameter.copy_(counted(parameter.shape, start))
    return model


@pytest.mark.parametrize("use_gating", [True, False])
@pytest.mark.parametrize("size", [(15, 21), (33, 9)])
def test_logits(use_gating: bool, size: tuple[int, int]) -> None:
    images = counted(torch.Size((2, 2, *size)), 5)
    logits = counted_model(use_gating)(images)
    expected = torch.tensor(GOLDEN[f"{use_gating}-{size[0]}x{size[1]}"], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
