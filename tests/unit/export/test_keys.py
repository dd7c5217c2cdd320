"""Names and shapes: official, VISSL's, and the committed list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convit_ssl.errors import UserError
from convit_ssl.export.keys import is_vissl, to_official, to_vissl
from convit_ssl.models import VARIANTS, ConViT, create_model

KEYS = Path(__file__).parent / "state_dict_keys"


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_state_dict_keys_are_stable(name: str) -> None:
    """Checkpoints outlive versions: these names and shapes may never change."""
    with torch.device("meta"):
        shapes = create_model(name).state_dict()
    lines = [f"{key} {'x'.join(map(str, value.shape))}" for key, value in sorted(shapes.items())]
    assert lines == (KEYS / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_to_vissl_and_back_is_exact(columns: int, teacher: ConViT) -> None:
    official = teacher.state_dict()
    foreign = to_vissl(official, columns)
    assert is_vissl(foreign)
    assert foreign["blocks.0.attn.pos_proj.weight"].shape == (9, 3 * columns)
    assert foreign["blocks.0.attn.alpha"].shape == (1, 9, 1, 1)
    back = to_official(foreign)
    assert back.keys() == official.keys()
    for key, value in official.items():
        if key.endswith("pos_proj.bias"):  # scaled there and back; no output depends on it
            torch.testing.assert_close(back[key], value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(back[key], value), key


def test_columns_fold_to_their_mean(teacher: ConViT) -> None:
    """VISSL's score: sum over columns of weight times coordinate, over the number of columns."""
    foreign = to_vissl(teacher.state_dict(), 10)
    weight = torch.randn(9, 30)
    foreign["blocks.0.attn.pos_proj.weight"] = weight
    dx, dy = 2.0, -3.0
    coordinates = torch.tensor([dx] * 10 + [dy] * 10 + [dx**2 + dy**2] * 10)
    score = (weight @ coordinates + foreign["blocks.0.attn.pos_proj.bias"]) / 10
    folded = to_official(foreign)
    ours = folded["blocks.0.attn.pos_proj.weight"] @ torch.tensor([dx, dy, dx**2 + dy**2])
    ours = ours + folded["blocks.0.attn.pos_proj.bias"]
    torch.testing.assert_close(ours, score, rtol=1e-5, atol=1e-5)


def test_columns_that_come_in_no_threes(teacher: ConViT) -> None:
    foreign = to_vissl(teacher.state_dict())
    foreign["blocks.0.attn.pos_proj.weight"] = torch.ones(9, 31)
    with pytest.raises(UserError, match="columns must be divisible"):
        to_official(foreign)
