"""Our ConViT against the paper's formula written out densely, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convit_ssl.models import ConViT, ConViTConfig

State = dict[str, Tensor]

# 64 channels would hide a swapped head and channel axis; 4 heads of 6 do not.
SMALL = ConViTConfig(
    img_size=(20, 12), patch_size=4, num_classes=5, embed_dim=24, depth=3, num_heads=4,
    num_gpsa_layers=2,
)  # fmt: skip


def naive_position_scores(weight: Tensor, bias: Tensor, positions: Tensor) -> Tensor:
    """pos_proj(dx, dy, dx^2 + dy^2) for each pair of tokens: (B, H, N, N)."""
    delta = positions[:, None, :, :] - positions[:, :, None, :]  # key minus query
    relative = torch.cat([delta, delta.square().sum(-1, keepdim=True)], dim=-1)
    return F.linear(relative, weight, bias).permute(0, 3, 1, 2)


def naive_gpsa(
    state: State, x: Tensor, positions: Tensor, num_heads: int, use_gating: bool = True
) -> Tensor:
    batch, tokens, dim = x.shape

    def heads(values: Tensor) -> Tensor:
        return values.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)

    query, key = F.linear(x, state["qk.weight"], state.get("qk.bias")).split(dim, dim=-1)
    value = heads(F.linear(x, state["v.weight"], state.get("v.bias")))
    content = heads(query) @ heads(key).transpose(-2, -1) / math.sqrt(dim // num_heads)
    position = naive_position_scores(state["pos_proj.weight"], state["pos_proj.bias"], positions)
    if use_gating:
        gate = torch.sigmoid(state["gating_param"]).view(1, -1, 1, 1)
        attention = (1 - gate) * content.softmax(-1) + gate * position.softmax(-1)
        attention = attention / attention.sum(-1, keepdim=True)
    else:
        attention = (content + position).softmax(-1)
    out = (attention @ value).transpose(1, 2).reshape(batch, tokens, dim)
    return F.linear(out, state["proj.weight"], state["proj.bias"])


def naive_attention(state: State, x: Tensor, num_heads: int) -> Tensor:
    batch, tokens, dim = x.shape
    qkv = F.linear(x, state["qkv.weight"], state.get("qkv.bias"))
    query, key, value = qkv.reshape(batch, tokens, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    attention = (query @ key.transpose(-2, -1) / math.sqrt(dim // num_heads)).softmax(-1)
    out = (attention @ value).transpose(1, 2).reshape(batch, tokens, dim)
    return F.linear(out, state["proj.weight"], state["proj.bias"])


def grid_coordinates(height: int, width: int) -> Tensor:
    """(x, y) of each patch, row by row."""
    return torch.tensor([(x, y) for y in range(height) for x in range(width)])


def naive_convit(
    state: State, config: ConViTConfig, images: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Logits of the whole network."""

    def part(prefix: str) -> State:
        cut = len(prefix)
        return {name[cut:]: value for name, value in state.items() if name.startswith(prefix)}

    def norm(x: Tensor, prefix: str) -> Tensor:
        weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps=1e-6)

    patch = config.patch_size
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    height, width = images.shape[-2] // patch, images.shape[-1] // patch
    own = (config.image_shape[0] // patch, config.image_shape[1] // patch)
    embedding = state["pos_embed"].reshape(1, *own, -1).permute(0, 3, 1, 2)
    if own != (height, width):
        embedding = F.interpolate(embedding, size=(height, width), mode="bicubic")
    x = F.conv2d(images, weight, bias, stride=patch) + embedding
    x = x.flatten(2).transpose(1, 2)
    positions = grid_coordinates(height, width).to(x).expand(len(x), -1, -1)
    if keep is not None:
        rows = torch.arange(len(x)).unsqueeze(1)
        x, positions = x[rows, keep], positions[rows, keep]

    for index in range(config.depth):
        block = f"blocks.{index}."
        if index == config.num_gpsa_layers:
            x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
        normed = norm(x, f"{block}norm1")
        if index < config.num_gpsa_layers:
            attention = part(f"{block}attn.")
            x = x + naive_gpsa(attention, normed, positions, config.num_heads, config.use_gating)
        else:
            x = x + naive_attention(part(f"{block}attn."), normed, config.num_heads)
        mlp = part(f"{block}mlp.")
        hidden = F.gelu(F.linear(norm(x, f"{block}norm2"), mlp["fc1.weight"], mlp["fc1.bias"]))
        x = x + F.linear(hidden, mlp["fc2.weight"], mlp["fc2.bias"])
    if config.num_gpsa_layers == config.depth:
        x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    tokens = norm(x, "norm")
    pooled = tokens[:, 0] if config.global_pool == "token" else tokens[:, 1:].mean(1)
    return F.linear(pooled, state["head.weight"], state["head.bias"])


def random_model(config: ConViTConfig) -> ConViT:
    model = ConViT(config).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gating_param"):
                parameter.uniform_(-2, 2)
            elif name.endswith("pos_proj.weight"):
                parameter.normal_(std=0.3)
            else:
                spread = parameter[0].numel() ** -0.5 if parameter.dim() == 2 else 0.3
                parameter.normal_(std=spread)
    return model


def compare(
    model: ConViT,
    images: Tensor,
    run: Callable[[ConViT], Tensor],
    keep: Tensor | None = None,
    tolerance: float = 1e-10,
) -> None:
    """Logits and the gradient of every parameter, ours (by `run`) against the naive network's."""
    state = {name: value.detach().double() for name, value in model.state_dict().items()}
    state = {name: value.clone().requires_grad_() for name, value in state.items()}
    expected = naive_convit(state, model.config, images.double(), keep)
    logits = run(model)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (logits.double() * weights).sum().backward()
    scale = expected.abs().max()
    assert (logits.double() - expected).abs().max() <= tolerance * scale
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        reference = state[name].grad
        assert reference is not None, name
        if name.endswith("pos_proj.bias"):
            assert parameter.grad.abs().max() == 0, name
            continue
        scale = reference.abs().max().clamp_min(1e-12)
        error = (parameter.grad.double() - reference).abs().max() / scale
        assert error <= 10 * tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("grid", [(5, 3), (7, 19), (1, 16), (9, 16), (16, 1), (4, 4)])
@pytest.mark.parametrize("use_gating", [True, False])
def test_any_grid(grid: tuple[int, int], use_gating: bool) -> None:
    model = random_model(replace(SMALL, use_gating=use_gating))
    images = torch.randn(2, 3, grid[0] * 4, grid[1] * 4).double()
    compare(model, images, lambda model: model(images))


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_bias": True},
        {"global_pool": "avg"},
        {"global_pool": "avg", "num_gpsa_layers": 3},
        {"num_gpsa_layers": 0},
        {"num_heads": 6, "local_init": False},
        {"num_heads": 1},
    ],
)
def test_options(options: dict[str, object]) -> None:
    model = random_model(replace(SMALL, **options))  # type: ignore[arg-type]
    images = torch.randn(2, 3, 20, 12).double()
    compare(model, images, lambda model: model(images))


@pytest.mark.parametrize("side", [96, 160, 384, 464])
def test_resolutions_of_the_published_patch(side: int) -> None:
    """Position embeddings made for 224 px, resampled to the side at hand."""
    config = replace(
        SMALL, img_size=224, patch_size=16, embed_dim=36, num_heads=9, depth=2, num_gpsa_layers=1
    )
    model = random_model(config)
    images = torch.randn(1, 3, side, side).double()
    compare(model, images, lambda model: model(images))


@pytest.mark.parametrize("use_gating", [True, False])
def test_half_of_the_tokens_dropped(use_gating: bool) -> None:
    model = random_model(replace(SMALL, use_gating=use_gating))
    images = torch.randn(2, 3, 28, 36).double()  # 7 x 9 patches
    keep = torch.stack([torch.randperm(63)[:31].sort().values for _ in range(2)])

    def run(model: ConViT) -> Tensor:
        return model.forward_head(model.forward_features(images, keep=keep))

    compare(model, images, run, keep=keep)


def test_all_tokens_kept_is_the_whole_grid() -> None:
    model = random_model(SMALL)
    images = torch.randn(2, 3, 20, 12).double()
    keep = torch.arange(15).expand(2, -1)
    whole, subset = model.forward_features(images), model.forward_features(images, keep=keep)
    torch.testing.assert_close(subset, whole, rtol=0, atol=1e-12)


def test_single_precision() -> None:
    model = random_model(SMALL).float()
    images = torch.randn(2, 3, 20, 12)
    compare(model, images, lambda model: model(images), tolerance=1e-5)


def test_dense_maps_are_the_formulas() -> None:
    """`attention_maps` against the map that the formula builds, and against its own parts."""
    model = random_model(SMALL)
    layer = model.blocks[0].attn
    x, grid = torch.randn(2, 21, 24).double(), (7, 3)
    maps = layer.attention_maps(x, grid)
    positions = grid_coordinates(*grid).double().unsqueeze(0)
    scores = naive_position_scores(layer.pos_proj.weight, layer.pos_proj.bias, positions)
    torch.testing.assert_close(maps.position, scores[0].softmax(-1))
    torch.testing.assert_close(layer.position_map(grid), scores[0].softmax(-1))
    gate = torch.sigmoid(layer.gating_param).view(-1, 1, 1)
    torch.testing.assert_close(maps.mixed, (1 - gate) * maps.content + gate * maps.position)
    torch.testing.assert_close(maps.mixed.sum(-1), torch.ones(2, 4, 21).double())
    torch.testing.assert_close(maps.gate, gate.flatten())
