"""A ConViT small enough to make hundreds of, and the files that others would have made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.models import ConViT, ConViTConfig

TINY = ConViTConfig(
    img_size=16, patch_size=4, num_classes=0, embed_dim=36, depth=3, num_heads=9, num_gpsa_layers=2
)


def _as_if_trained(model: ConViT, seed: int) -> ConViT:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def config() -> ConViTConfig:
    return TINY


@pytest.fixture
def student() -> ConViT:
    return _as_if_trained(ConViT(TINY), seed=1)


@pytest.fixture
def teacher() -> ConViT:
    return _as_if_trained(ConViT(TINY), seed=2)


@pytest.fixture
def entry() -> dict[str, Any]:
    """What our training writes about itself."""
    return {
        "format": 1,
        "model": dataclasses.asdict(TINY),
        "variant": None,
        "method": "dino",
        "epoch": 7,
        "data": {"name": "digits", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        "commit": "abc",
    }


@pytest.fixture
def checkpoint(
    tmp_path: Path, student: ConViT, teacher: ConViT, entry: dict[str, Any]
) -> dict[str, Any]:
    """The content of one of our training checkpoints."""
    loss = {f"teacher.trunk.{key}": value for key, value in teacher.state_dict().items()}
    loss |= {"teacher.heads.0.last.weight": torch.ones(2), "center": torch.zeros(3)}
    model = {"trunk": student.state_dict(), "heads": {"0.last.weight": torch.ones(2)}}
    return {
        "classy_state_dict": {"base_model": {"model": model}, "loss": loss, "optim": {"lr": 0.1}},
        "convit_ssl": entry,
    }


@pytest.fixture
def run_folder(tmp_path: Path, checkpoint: dict[str, Any]) -> Path:
    """A run as training leaves it."""
    folder = tmp_path / "runs" / "digits"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "checkpoint_e0007.torch")
    (folder / "checkpoints" / "last.torch").symlink_to("checkpoint_e0007.torch")
    lines = ['{"kind": "eval", "epoch": 5, "knn": 0.5}', '{"kind": "eval", "epoch": 7, "knn": 0.9}']
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "ev']))
    return folder
