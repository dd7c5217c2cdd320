"""The gradient of the gates: as exact as the published formula's, in every dtype, on every way.

It is a difference of two sums, gate (1 - gate) <grad, P V - softmax(Q K^T) V>. Where gates are
nearly closed or open, or all values have much in common, little is left of it once either sum was
rounded. The reference is the formula of the release, written out, in double precision.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convit_ssl.models import GPSA
from convit_ssl.models.position import grid_positions

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
LOGITS = [-12.0, -6.0, -1.0, 1.0, 5.0, 9.0, 12.0]


def published(layer: GPSA, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """`GPSA.forward` of ConViT's release (Apache 2.0), its formula for any grid."""
    batch, tokens, dim = x.shape
    heads = layer.num_heads
    query, key = layer.qk(x).reshape(batch, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4)
    value = layer.v(x).reshape(batch, tokens, heads, -1).transpose(1, 2)
    at = grid_positions(grid)[0]
    delta = (at[None] - at[:, None]).to(layer.pos_proj.weight.dtype)
    relative = torch.cat([delta, delta.square().sum(-1, keepdim=True)], dim=-1)
    position = layer.pos_proj(relative).permute(2, 0, 1).softmax(-1)
    content = (query @ key.mT * (dim // heads) ** -0.5).softmax(-1)
    gate = torch.sigmoid(layer.gating_param).view(1, -1, 1, 1)
    attention = (1.0 - gate) * content + gate * position
    attention = attention / attention.sum(-1, keepdim=True)
    out: Tensor = layer.proj((attention @ value).transpose(1, 2).reshape(batch, tokens, dim))
    return out


class Problem:
    """A layer, its input and a target; gradients of the gates by whichever formula."""

    def __init__(
        self, grid: tuple[int, int], logit: float, common: float = 0.0, flat: float = 1.0
    ) -> None:
        tokens = grid[0] * grid[1]
        self.grid, batch = grid, max(1, 600 // tokens)
        self.layer = GPSA(32, 4)
        self.layer.local_init()
        with torch.no_grad():
            self.layer.gating_param.copy_(logit + 0.1 * torch.randn(4))
            self.layer.qk.weight.normal_(std=0.3 * flat**0.5)
            self.layer.pos_proj.weight.mul_(flat)
        self.x = torch.randn(batch, tokens, 32) + common * torch.randn(32)
        self.target = torch.randn(batch, tokens, 32)
        exact = copy.deepcopy(self.layer).double()
        self.exact = self.gradient(exact, published(exact, self.x.double(), grid))

    def gradient(self, layer: GPSA, out: Tensor) -> Tensor:
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        total = (out - self.target).square().mean() * 32
        return torch.autograd.grad(total, layer.gating_param)[0].double()

    def errors(self, dtype: torch.dtype, positions: Tensor | None = None) -> tuple[float, float]:
        """Ours and the formula's, both under the same autocast."""
        found = []
        for run in (
            lambda: self.layer(self.x, self.grid, positions),
            lambda: published(self.layer, self.x, self.grid),
        ):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                out = run()
            gradient = self.gradient(self.layer, out)
            found.append(float((gradient - self.exact).norm() / self.exact.norm()))
        return found[0], found[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (14, 14), (20, 20)])
@pytest.mark.parametrize("logit", LOGITS)
def test_as_exact_as_the_published_formula(
    logit: float, grid: tuple[int, int], dtype: torch.dtype
) -> None:
    ours, _ = Problem(grid, logit).errors(dtype)
    assert ours <= (1e-5 if dtype == torch.float32 else 0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["dense", "subset"])
@pytest.mark.parametrize("logit", LOGITS)
def test_the_ways_for_dropout_and_for_subsets(logit: float, way: str, dtype: torch.dtype) -> None:
    problem = Problem((6, 5), logit)
    positions = grid_positions((6, 5)) if way == "subset" else None
    if way == "dense":
        problem.layer.attn_drop.p = 1e-12
    assert problem.layer.path(positions) == way
    ours, _ = problem.errors(dtype, positions)
    assert ours <= (1e-5 if dtype == torch.float32 else 0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-20.0, 20.0])
def test_far_beyond_where_the_formula_can_follow(logit: float, dtype: torch.dtype) -> None:
    """At 20 the formula's 1 - gate is 0 in float32, and so is its gradient."""
    ours, formula = Problem((6, 6), logit).errors(dtype)
    assert ours <= 0.01
    assert logit < 0 or formula == 1.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 20),
    width=st.integers(2, 20),
    logit=st.floats(-12, 12),
    common=st.floats(0, 3),
    dtype=st.sampled_from(DTYPES),
)
def test_any_grid_gate_and_common_part(
    seed: int, height: int, width: int, logit: float, common: float, dtype: torch.dtype
) -> None:
    """Within 2 % wherever the formula is, also where all tokens share most of their values."""
    torch.manual_seed(seed)
    ours, formula = Problem((height, width), logit, common).errors(dtype)
    assert ours <= 0.02 or formula > 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [(5, 8), (13, 9), (14, 20), (19, 20)])
@pytest.mark.parametrize("common", [0.0, 2.0])
@pytest.mark.parametrize("logit", [-9.0, 2.0, 10.0])
def test_where_content_and_position_hardly_differ(
    logit: float, common: float, grid: tuple[int, int], dtype: torch.dtype
) -> None:
    """Both maps almost uniform: rounded to half precision they would be the same."""
    ours, formula = Problem(grid, logit, common, flat=0.003).errors(dtype)
    assert ours <= 0.02 or formula > 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_other_gradient_is_lost_with_a_closed_or_open_gate(dtype: torch.dtype) -> None:
    """In half precision 0.999 is 1: the content's share must not be rounded away with it."""
    for positions in (None, grid_positions((6, 6))):
        problem = Problem((6, 6), 7.0)
        layer, exact = problem.layer, copy.deepcopy(problem.layer).double()
        weights = torch.randn_like(problem.x)
        out = published(exact, problem.x.double(), (6, 6))
        expected = torch.autograd.grad((out * weights).sum(), exact.qk.weight)[0]
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            out = layer(problem.x, (6, 6), positions)
        found = torch.autograd.grad((out.float() * weights).sum(), layer.qk.weight)[0]
        assert (found.double() - expected).norm() <= 0.03 * expected.norm()
