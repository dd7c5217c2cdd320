"""Masks take away one source of information, and nothing else."""

from __future__ import annotations

import pytest
import torch

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.fingerprint import weights_fingerprint
from convit_ssl.evaluation.features.masking import mask_model
from convit_ssl.models import GPSA, ConViT, ConViTConfig


def gpsa_layers(model: ConViT) -> list[GPSA]:
    return [module for module in model.modules() if isinstance(module, GPSA)]


@pytest.mark.parametrize("mask", ["content", "position"])
def test_gpsa_attends_by_the_other_map_alone(model: ConViT, mask: str) -> None:
    masked = mask_model(model, mask)
    x = torch.randn(2, 16, 12)
    for layer in gpsa_layers(masked):
        maps = layer.attention_maps(x, (4, 4))
        left = maps.position.expand_as(maps.content) if mask == "content" else maps.content
        torch.testing.assert_close(maps.mixed, left)
        value = layer.v(x).view(2, 16, 4, 3).transpose(1, 2)
        expected = layer.proj((left @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(x, (4, 4)), expected, atol=1e-6, rtol=1e-5)


def test_the_masked_source_can_be_anything(model: ConViT) -> None:
    x = torch.randn(2, 3, 16, 16)
    without_content = mask_model(model, "content")
    without_position = mask_model(model, "position")
    with torch.no_grad():
        before = without_content(x), without_position(x)
        for layer in gpsa_layers(without_content):
            layer.qk.weight.normal_()
        for layer in gpsa_layers(without_position):
            layer.pos_proj.weight.normal_()
        torch.testing.assert_close(without_content(x), before[0])
        torch.testing.assert_close(without_position(x), before[1])


def test_position_embeddings(model: ConViT) -> None:
    before = weights_fingerprint(model)
    masked = mask_model(model, "pos-embed")
    assert masked.pos_embed.abs().max() == 0
    assert weights_fingerprint(model) == before
    assert weights_fingerprint(masked) != before


def test_a_model_without_gates_is_refused(model: ConViT) -> None:
    vit = ConViT(ConViTConfig(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=4,
                              num_gpsa_layers=0))  # fmt: skip
    with pytest.raises(UserError, match="acts on the gates of GPSA, and this model has 0 GPSA"):
        mask_model(vit, "content")
    assert mask_model(vit, "pos-embed").pos_embed.abs().max() == 0
    with pytest.raises(UserError, match="unknown mask 'gate'"):
        mask_model(model, "gate")
