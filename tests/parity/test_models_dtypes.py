"""Half precision: how far each way of computing GPSA is from double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convit_ssl.models import GPSA


def random_layer(dim: int, num_heads: int) -> GPSA:
    """Weights as after training: positions still local, content matters, gates spread."""
    layer = GPSA(dim, num_heads)
    with torch.no_grad():
        layer.local_init()
        layer.pos_proj.weight.add_(torch.randn_like(layer.pos_proj.weight) * 0.2)
        layer.v.weight.normal_(std=dim**-0.5)
        layer.qk.weight.normal_(std=dim**-0.5)
        layer.proj.weight.normal_(std=dim**-0.5)
        layer.gating_param.uniform_(-2, 2)
    return layer


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.detach().double() - expected).norm() / expected.norm()).item()


def in_double(layer: GPSA, x: Tensor, grid: tuple[int, int]) -> Tensor:
    layer.double()
    maps = layer.attention_maps(x.double(), grid)
    values = layer.v(x.double()).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    out = layer.proj((maps.mixed @ values).transpose(1, 2).flatten(2)).detach()
    layer.float()
    return out


@pytest.mark.parametrize("side", [6, 14, 32])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast(side: int, training: bool) -> None:
    """The published formula in bfloat16 is off by 1.2e-2 at 14 x 14 and 3.7e-2 at 32 x 32."""
    layer = random_layer(96, 4).train(training)
    x = torch.randn(1, side**2, 96).bfloat16().float()
    expected = in_double(layer, x, (side, side))
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x, (side, side))
    assert out.dtype == torch.bfloat16
    assert relative_error(out, expected) < 5e-3


def test_maps_and_attention_dropout_under_bfloat16_autocast() -> None:
    """Dropout takes the way of the maps, which are in bfloat16 on a CPU."""
    layer = random_layer(96, 4).train()
    x = torch.randn(1, 36, 96).bfloat16().float()
    expected = in_double(layer, x, (6, 6))
    layer.attn_drop.p = 1e-9
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.attention_maps(x, (6, 6)).mixed.shape == (1, 4, 36, 36)
        out = layer(x, (6, 6))
    assert relative_error(out, expected) < 2e-2


def test_closer_than_timm_in_bfloat16() -> None:
    from timm.models.convit import GPSA as Timm

    layer, theirs = random_layer(96, 4), Timm(96, 4)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(1, 196, 96).bfloat16().float()
    expected = in_double(layer, x, (14, 14))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        ours, other = layer(x, (14, 14)), theirs(x)
    assert relative_error(ours, expected) < relative_error(other, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype: torch.dtype) -> None:
    layer = random_layer(96, 4).to(dtype)
    x = torch.randn(2, 9 * 5, 96, dtype=dtype)
    expected = in_double(layer, x, (9, 5))
    layer.to(dtype)
    out = layer(x, (9, 5))
    assert out.dtype == dtype
    assert relative_error(out, expected) < (1e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("side", [4, 6, 14, 18])  # explicit up to 5 x 5, in bf16 16 x 16
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_in_every_dtype_and_on_both_sides_of_the_threshold(
    side: int, dtype: torch.dtype
) -> None:
    layer = random_layer(32, 4)
    x, grid = torch.randn(2, side**2, 32), (side, side)
    weights = torch.randn(2, side**2, 32).double()

    def gradients() -> list[Tensor]:
        return [p.grad.double().clone() for p in layer.parameters()]  # type: ignore[union-attr]

    layer.double()
    maps = layer.attention_maps(x.double(), grid)
    values = layer.v(x.double()).unflatten(-1, (4, -1)).transpose(1, 2)
    out = layer.proj((maps.mixed @ values).transpose(1, 2).flatten(2))
    (out * weights).sum().backward()
    expected = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
    layer.float().zero_grad()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        out = layer(x, grid)
    (out.double() * weights).sum().backward()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}[dtype]
    named = zip(layer.named_parameters(), gradients(), expected, strict=True)
    for (name, _), actual, reference in named:
        if name == "pos_proj.bias":
            assert actual.abs().max() == 0
        else:
            assert reference is not None
            # With folded gates the gate's gradient is a difference of two larger sums.
            room = 2 if name == "gating_param" else 1
            assert relative_error(actual, reference) < room * tolerance, name
