"""Gates, centres, widths and non-locality against closed forms and the naive dense map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convit_ssl.analysis import locality
from convit_ssl.models import create_model


def nano(**overrides):
    overrides = {"num_classes": 0, **overrides}
    return create_model("convit_nano", **overrides).eval()


def naive_mean_distance(attention, grid):
    """The definition, one pair of patches at a time."""
    height, width = grid
    totals = np.zeros(attention.shape[0])
    for query in range(height * width):
        for key in range(height * width):
            dy = query // width - key // width
            dx = query % width - key % width
            totals += attention[:, query, key].numpy() * math.sqrt(dx * dx + dy * dy)
    return totals / (height * width)


def test_nine_heads_start_on_the_three_by_three_kernel():
    model = create_model(
        "convit_nano", embed_dim=144, num_heads=9, locality_strength=2.0, num_classes=0
    )
    found = locality.positional_attention(model)
    assert found.layers == (0, 1, 2, 3)
    for layer in range(4):
        offsets = {tuple(centre) for centre in found.centres[layer].round(6)}
        assert offsets == {(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)}
    # One head on the query itself, four at distance 1, four on the diagonals.
    expected = [0.0] + [1.0] * 4 + [math.sqrt(2)] * 4
    np.testing.assert_allclose(np.sort(found.distances[0]), expected, atol=1e-6)
    np.testing.assert_allclose(found.widths, 1 / math.sqrt(2 * 2.0), rtol=1e-6)
    np.testing.assert_allclose(found.gates, 1 / (1 + math.exp(-1)), rtol=1e-6)


def test_four_heads_start_half_a_patch_away():
    found = locality.positional_attention(nano())
    np.testing.assert_allclose(np.abs(found.centres), 0.5, atol=1e-6)


def test_initial_values_equal_those_of_a_fresh_model():
    model = nano(locality_strength=1.5)
    now, start = locality.positional_attention(model), locality.initial_positional_attention(model)
    for name in ("gates", "centres", "widths", "logits"):
        np.testing.assert_allclose(getattr(now, name), getattr(start, name), rtol=1e-6)
    assert locality.initial_positional_attention(nano(local_init=False)) is None


def test_sharp_local_head_attends_at_its_offset():
    # With a very sharp kernel the paper's heads attend at distance 0 or 1 exactly; the border
    # patches, whose offset points outside, attend at themselves.
    model = create_model(
        "convit_nano", embed_dim=144, num_heads=9, locality_strength=60.0, num_classes=0
    )
    _, attn = locality.gpsa_layers(model)[0]
    grid = (5, 7)
    found = locality.mean_distance(attn.position_map(grid), grid)
    centres = locality.positional_attention(model).centres[0]
    for head, (x, y) in enumerate(centres):
        inside_x, inside_y = (7 - abs(x)) / 7, (5 - abs(y)) / 5
        both = inside_x * inside_y * math.hypot(x, y)
        one = inside_x * (1 - inside_y) * abs(x) + (1 - inside_x) * inside_y * abs(y)
        assert found[head].item() == pytest.approx(both + one, abs=1e-5)


def test_head_without_a_peak_has_no_centre():
    model = nano()
    with torch.no_grad():
        model.blocks[1].attn.pos_proj.weight[2, 2] = 0.3
    found = locality.positional_attention(model)
    assert np.isnan(found.centres[1, 2]).all() and np.isinf(found.widths[1, 2])
    assert np.isfinite(found.centres[0]).all()


def test_deit_has_no_positional_attention():
    model = create_model("deit_nano", num_classes=0)
    found = locality.positional_attention(model)
    assert found.layers == () and found.gates.shape == (0, 4)
    assert locality.initial_positional_attention(model) is None
    measured = locality.measure_nonlocality(model.eval(), torch.randn(2, 3, 32, 32))
    assert np.isnan(measured.position).all() and np.isfinite(measured.mixed).all()


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 7), width=st.integers(1, 7))
def test_uniform_distance_is_the_mean_over_pairs(height, width):
    grid = (height, width)
    expected = locality.grid_distances(grid).double().mean().item()
    assert locality.uniform_distance(grid) == pytest.approx(expected, rel=1e-6)
    tokens = height * width
    uniform = torch.full((3, 2, tokens, tokens), 1 / tokens)
    found = locality.mean_distance(uniform, grid)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_uniform_distance_of_two_by_two():
    assert locality.uniform_distance((2, 2)) == pytest.approx((2 * 1 + math.sqrt(2)) / 4)


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_mean_distance_equals_the_naive_loop(height, width, seed):
    tokens = height * width
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(2, 3, tokens, tokens, generator=generator).softmax(-1)
    expected = naive_mean_distance(attention.mean(0).double(), (height, width))
    np.testing.assert_allclose(
        locality.mean_distance(attention, (height, width)).numpy(), expected, rtol=2e-5
    )


def test_class_token_is_left_out_and_rows_sum_to_one():
    attention = torch.rand(2, 3, 13, 13).softmax(-1)
    among = locality.patch_attention(attention, (3, 4))
    torch.testing.assert_close(among.sum(-1), torch.ones(2, 3, 12))
    with pytest.raises(ValueError, match="14 tokens are not the 12 patches"):
        locality.patch_attention(torch.rand(1, 3, 14, 14), (3, 4))


def test_released_definition_equals_timm():
    """timm carries the released `get_attention_map`; same weights, same numbers."""
    timm_convit = pytest.importorskip("timm.models.convit")
    ours = create_model("convit_tiny", num_classes=0, img_size=64, depth=3, num_gpsa_layers=2)
    theirs = timm_convit.ConVit(
        img_size=64, embed_dim=48, num_heads=4, depth=3, local_up_to_layer=2, num_classes=0
    )
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(3, 3, 64, 64)
    tokens = theirs.patch_embed(images)
    theirs(images)  # fills the relative indices
    expected = [block.attn.get_attention_map(tokens).detach() for block in theirs.blocks[:2]]
    found = locality.released_nonlocality(ours, images)
    np.testing.assert_allclose(found[:2], torch.stack(expected).numpy(), rtol=1e-4)
    # timm's plain layer returns None for the distance; the released formula on its map.
    query, key, _ = (
        theirs.blocks[2].attn.qkv(tokens).reshape(3, 16, 3, 4, 48).permute(2, 0, 3, 1, 4)
    )
    content = (query @ key.transpose(-2, -1) * 48**-0.5).softmax(-1).mean(0).detach()
    np.testing.assert_allclose(found[2], naive_mean_distance(content.double(), (4, 4)), rtol=1e-4)


def test_nonlocality_of_each_layer_on_its_own_input():
    model = nano()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 24, 40)
    found = locality.measure_nonlocality(model, images)
    assert found.grid == (6, 10) and found.mixed.shape == (6, 4)
    _, inside = model.forward_intermediates(images, return_attention=True)
    for layer, maps in enumerate(inside.attention):
        dense = maps.mixed.detach()
        if dense.shape[-1] == 61:
            dense = dense[..., 1:, 1:] / dense[..., 1:, 1:].sum(-1, keepdim=True)
        expected = naive_mean_distance(dense.mean(0).double(), (6, 10))
        np.testing.assert_allclose(found.mixed[layer], expected, rtol=1e-4)
    # A gate mixes linearly, so the three figures of a GPSA layer obey the same mix.
    gates = locality.positional_attention(model).gates
    mix = (1 - gates) * found.content[:4] + gates * found.position[:4]
    np.testing.assert_allclose(found.mixed[:4], mix, rtol=1e-4)


def test_nonlocality_is_the_same_however_many_images_at_a_time(monkeypatch):
    model, images = create_model("convit_nano", num_classes=0), torch.randn(5, 3, 32, 48)
    together = locality.measure_nonlocality(model, images)
    for values in (1, 2 * 3 * model.config.depth * model.config.num_heads * 97**2):
        monkeypatch.setattr(locality, "MAP_VALUES", values)  # one image, two
        parts = locality.measure_nonlocality(model, images)
        for kind in ("mixed", "content", "position"):
            found, expected = getattr(parts, kind), getattr(together, kind)
            np.testing.assert_allclose(found, expected, atol=1e-5)
