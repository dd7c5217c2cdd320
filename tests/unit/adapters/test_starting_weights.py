"""A run that starts from other weights computes what they computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from convit_ssl.adapters.weights import entry_of_trunk, initialise
from convit_ssl.export import load_trunk
from convit_ssl.export.files import ENTRY
from convit_ssl.export.load import layer_norm_eps, set_layer_norm_eps
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig

CONFIG = ConViTConfig(
    img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=4, num_gpsa_layers=1, num_classes=0
)


def start(path: Path) -> Any:
    model: Any = SimpleNamespace(trunk=ConViT(CONFIG).eval())
    trunk = SimpleNamespace(num_heads=None, variant="tiny")
    initialise(model, SimpleNamespace(weights=str(path), weights_from="teacher", trunk=trunk))
    return model


def test_the_eps_of_the_weights_comes_along_and_is_kept(tmp_path: Path) -> None:
    source = ConViT(CONFIG).eval()
    set_layer_norm_eps(source, 1e-3)
    save_trunk(source, tmp_path / "source.torch")
    model = start(tmp_path / "source.torch")
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(model.trunk(images), source(images))
    entry = entry_of_trunk(model)
    assert entry == {"layer_norm_eps": 1e-3}
    # As a checkpoint of the run says it.
    content = torch.load(tmp_path / "source.torch", weights_only=True)
    del content[ENTRY]["layer_norm_eps"]
    content[ENTRY].update(entry)
    torch.save(content, tmp_path / "saved.torch")
    assert layer_norm_eps(load_trunk(tmp_path / "saved.torch")) == 1e-3


def test_ours_needs_no_word(tmp_path: Path) -> None:
    save_trunk(ConViT(CONFIG), tmp_path / "source.torch")
    assert entry_of_trunk(start(tmp_path / "source.torch")) == {}
