"""A ConViT that starts from a plain ViT computes what the ViT learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from convit_ssl.models import GPSA, ConViT, ConViTConfig
from convit_ssl.models.from_vit import from_vit

VIT = ConViTConfig(
    img_size=(24, 16), patch_size=4, num_classes=0, embed_dim=24, depth=4, num_heads=6,
    num_gpsa_layers=0, qkv_bias=True,
)  # fmt: skip


def networks(gpsa: int = 3, **fields: object) -> tuple[ConViT, ConViT]:
    torch.manual_seed(0)
    vit = ConViT(replace(VIT, **fields)).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = replace(vit.config, num_gpsa_layers=gpsa, local_init=False)
    return vit, ConViT(config).eval()


def vit_with_a_late_class_token(vit: ConViT, images: Tensor, layer: int) -> Tensor:
    """The ViT's own blocks, the class token joining before one of them."""
    tokens = vit.patch_embed(images) + vit.pos_embed
    grid = vit.grid_size(*images.shape[-2:])
    for number, block in enumerate(vit.blocks):
        if number == layer:
            tokens = torch.cat((vit.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)
        tokens = block(tokens, grid)
    return vit.norm(tokens)


@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False}, {"num_heads": 4}, {"num_heads": 3}])
@torch.inference_mode()
def test_with_gates_open_to_content_it_is_the_vit(fields: dict[str, object]) -> None:
    vit, trunk = networks(**fields)
    from_vit(trunk, vit, gate=1e-8)
    images = torch.randn(2, 3, 24, 16)
    expected = vit_with_a_late_class_token(vit, images, 3)
    torch.testing.assert_close(trunk.forward_features(images), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_class_token_is_all_that_differs_from_the_whole_vit() -> None:
    vit, _ = networks()
    images = torch.randn(2, 3, 24, 16)
    whole = vit.forward_features(images)
    torch.testing.assert_close(vit_with_a_late_class_token(vit, images, 0), whole)


def test_the_positional_half_is_local_and_gated_as_asked() -> None:
    vit, trunk = networks()
    taken = from_vit(trunk, vit, gate=0.25)
    assert taken.heads == (2, 3)
    assert taken.taken == sum(p.numel() for p in vit.parameters())
    assert taken.new == 3 * (6 + 6 * 3 + 6)
    for layer in (block.attn for block in trunk.blocks[:3]):
        assert torch.allclose(layer.gate, torch.tensor(0.25))
        offsets = {tuple(row) for row in (layer.pos_proj.weight[:, :2] / 2).tolist()}
        assert offsets == {(x, y) for x in (-1.0, 0.0, 1.0) for y in (-0.5, 0.5)}
        assert not layer.pos_proj.bias.any()
    assert "0.25 of their attention" in str(taken)


def test_heads_of_a_square_number_stand_as_at_birth() -> None:
    born, placed = (GPSA(16, 4, locality_strength=0.5) for _ in range(2))
    born.local_init()
    placed.place_heads()
    assert torch.equal(born.pos_proj.weight, placed.pos_proj.weight)


def test_an_impulse_is_one_patch_of_the_nine_around() -> None:
    torch.manual_seed(0)
    layers = [GPSA(16, 4) for _ in range(8)]
    for layer in layers:
        layer.place_impulses()
    seen = set()
    for layer in layers:
        attention = layer.position_map((7, 7)).view(4, 7, 7, 7, 7)
        for head, weight in enumerate(layer.pos_proj.weight):
            across, down = (int(x) for x in (weight[:2] / (-2 * weight[2])).tolist())
            assert max(abs(across), abs(down)) <= 1
            seen.add((across, down))
            for row, column in ((3, 3), (1, 5), (5, 1)):
                assert attention[head, row, column, row + down, column + across] > 0.96
    assert seen == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    same = torch.equal(layers[0].pos_proj.weight, layers[1].pos_proj.weight)
    assert not same and not layers[0].pos_proj.bias.isnan().any()


def test_networks_of_other_shapes_are_refused() -> None:
    vit, trunk = networks()
    with pytest.raises(ValueError, match="differ in"):
        from_vit(trunk, ConViT(replace(VIT, depth=5)))
    with pytest.raises(ValueError, match=r"differ in blocks\.0\.attn"):
        from_vit(trunk, ConViT(replace(VIT, qkv_bias=False)))
    with pytest.raises(ValueError, match="without any"):
        from_vit(vit, trunk)
    with pytest.raises(ValueError, match="between 0 and 1"):
        from_vit(trunk, vit, gate=1.0)
