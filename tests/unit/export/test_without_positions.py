"""ConViT trained with the release's use_pos_embed=False: loaded, computed with, and written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.masking import mask_model
from convit_ssl.export.load import load_trunk, resized
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models import ConViT, ConViTConfig

SIZES: dict[str, Any] = {"patch_size": 4, "depth": 3, "num_heads": 9, "img_size": 16}


def in_timm() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "convit_tiny", **SIZES, embed_dim=4, local_up_to_layer=2, num_classes=5,
        use_pos_embed=False,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"model": in_timm().state_dict()}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@torch.no_grad()
def test_the_official_form_loads_and_computes_the_same(weights: Path) -> None:
    images = torch.randn(2, 3, 16, 16)
    model = load_trunk(weights, img_size=16)
    assert not model.config.use_pos_embed and model.config.image_shape == (16, 16)
    torch.testing.assert_close(model(images), in_timm()(images), rtol=0, atol=1e-5)
    oblong = torch.randn(2, 3, 8, 24)
    torch.testing.assert_close(resized(model, (8, 24))(oblong), model(oblong), rtol=0, atol=0)


def test_no_size_is_assumed(weights: Path) -> None:
    """A lost pos_embed looks the same, and another size gives other features."""
    with pytest.raises(UserError, match=r"has no pos_embed.*use_pos_embed=False.*--img-size"):
        load_trunk(weights)
    guesses: list[str] = vars(load_trunk(weights, img_size=16))["provenance"]["guesses"]
    assert not any("position embeddings" in text for text in guesses)


def test_a_plain_vit_without_positions_is_still_refused(tmp_path: Path) -> None:
    plain = ConViT(ConViTConfig(img_size=16, patch_size=4, embed_dim=36, num_gpsa_layers=0))
    tensors = {k: v for k, v in plain.state_dict().items() if k != "pos_embed"}
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(UserError, match="pos_embed is missing"):
        load_trunk(tmp_path / "w.pth", num_heads=9)


@torch.no_grad()
def test_every_form_gives_it_back(weights: Path, tmp_path: Path) -> None:
    model = load_trunk(weights, img_size=16)
    forms = ["official", "hf", "vissl", "timm"]
    written = export_trunk(model, forms, tmp_path / "out", name="t")
    assert max(d.value for item in written for d in item.differences) < 1e-4
    images = torch.randn(2, 3, 16, 16)
    for path in ("t.pth", "timm", "hf", "t_vissl.torch"):
        again = load_trunk(tmp_path / "out" / path, num_classes=0)
        assert again.config.image_shape == (16, 16), path
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(again(images), expected, rtol=0, atol=1e-5)


def test_there_is_nothing_to_mask(weights: Path) -> None:
    with pytest.raises(UserError, match="no position embeddings"):
        mask_model(load_trunk(weights, img_size=16), "pos-embed")


@torch.no_grad()
def test_other_options_are_as_they_were() -> None:
    config = ConViTConfig(**SIZES, embed_dim=36, num_gpsa_layers=2)
    model = ConViT(dataclasses.replace(config, use_pos_embed=False)).eval()
    assert "pos_embed" not in model.state_dict()
    keep = torch.arange(4).expand(2, -1)
    assert model.forward_features(torch.randn(2, 3, 16, 16), keep).shape == (2, 5, 36)
    assert "pos_embed" in ConViT(config).state_dict()
