"""Heads: keys, widths, and what keeps them stable."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convit_ssl.methods import BarlowTwinsHead, DINOHead, MoCoV3Head, SimCLRHead, SwAVHead

DINO_KEYS = {
    "mlp.0.weight": (13, 5),
    "mlp.0.bias": (13,),
    "mlp.2.weight": (13, 13),
    "mlp.2.bias": (13,),
    "mlp.4.weight": (7, 13),
    "mlp.4.bias": (7,),
    "last_layer.weight_g": (17, 1),
    "last_layer.weight_v": (17, 7),
}


def test_dino_head_has_the_published_keys() -> None:
    head = DINOHead(5, 17, hidden_dim=13, bottleneck_dim=7)
    assert {name: tuple(t.shape) for name, t in head.state_dict().items()} == DINO_KEYS


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_dino_head_equals_torch_weight_norm(norm_last_layer: bool) -> None:
    head = DINOHead(5, 17, hidden_dim=13, bottleneck_dim=7, norm_last_layer=norm_last_layer)
    if not norm_last_layer:
        nn.init.uniform_(head.last_layer.weight_g, 0.5, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        last = nn.utils.weight_norm(nn.Linear(7, 17, bias=False))
    last.load_state_dict(head.last_layer.state_dict())
    x = torch.randn(3, 5)
    expected = last(F.normalize(head.mlp(x), dim=-1))
    logits = head(x)
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits.square().sum(), head.last_layer.weight_v)
    (wanted,) = torch.autograd.grad(expected.square().sum(), last.weight_v)
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)
    assert head.last_layer.weight_g.requires_grad is not norm_last_layer


def test_dino_logits_are_cosines_and_the_init_is_the_published_one() -> None:
    head = DINOHead(64, 128)
    assert head(torch.randn(8, 64) * 100).abs().max() <= 1 + 1e-5
    assert head.mlp[0].bias.abs().max() == 0
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(head.last_layer.weight_g, torch.ones(128, 1))


def test_dino_head_copies_and_runs_in_bfloat16() -> None:
    head = DINOHead(5, 17, hidden_dim=13, bottleneck_dim=7, use_bn=True)
    head(torch.randn(4, 5)).sum().backward()
    twin = copy.deepcopy(head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert twin(torch.randn(4, 5)).dtype == torch.bfloat16
    assert twin.bfloat16()(torch.randn(4, 5).bfloat16()).dtype == torch.bfloat16
    assert SwAVHead(5, 19, 13, 7).bfloat16()(torch.randn(4, 5).bfloat16()).shape == (4, 19)


@pytest.mark.parametrize(
    ("head", "out_dim"),
    [
        (SimCLRHead(5, 13, 7), 7),
        (SimCLRHead(5, 13, 7, num_layers=3, use_bn=False), 7),
        (MoCoV3Head(5, 13, 7), 7),
        (SwAVHead(5, 19, 13, 7), 19),
        (BarlowTwinsHead(5, 13, 7), 7),
    ],
)
def test_every_parameter_of_a_head_is_trained(head: nn.Module, out_dim: int) -> None:
    output = head(torch.randn(6, 5))
    assert output.shape == (6, out_dim)
    output.pow(3).sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_moco_projection_is_standardised() -> None:
    projected = MoCoV3Head(5, 13, 7).project(torch.randn(64, 5))
    torch.testing.assert_close(projected.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(projected.var(0, correction=0), torch.ones(7), atol=2e-2, rtol=0)


def test_swav_scores_are_cosines() -> None:
    head = SwAVHead(5, 19, 13, 7)
    with torch.no_grad():
        head.prototypes.weight.mul_(3)
    head.normalize_prototypes()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(19))
    assert head(torch.randn(6, 5)).abs().max() <= 1 + 1e-5


def different_views(dim: int = 5) -> list[torch.Tensor]:
    """Two views with different means and variances, as blur and solarisation make them."""
    first = torch.randn(16, dim, dtype=torch.float64)
    return [first, 1.5 * first + torch.randn(16, dim, dtype=torch.float64) + 0.8]


@pytest.mark.parametrize("name", ["predictions", "projections", "barlow_twins"])
def test_views_are_normalised_one_by_one(name: str) -> None:
    """As MoCo v3 and Barlow Twins are published: a call for each view."""
    head = BarlowTwinsHead(5, 13, 7) if name == "barlow_twins" else MoCoV3Head(5, 13, 7)
    head.double()
    twin = copy.deepcopy(head)
    call = "project" if name == "projections" else "forward"
    views = different_views()
    packed = getattr(head, call)(torch.cat(views), views=2)
    apart = torch.cat([getattr(twin, call)(view) for view in views])
    torch.testing.assert_close(packed, apart, atol=1e-12, rtol=1e-12)
    assert not torch.allclose(packed, getattr(head, call)(torch.cat(views)), atol=0.1)
    packed.pow(3).sum().backward()
    apart.pow(3).sum().backward()
    for one, other in zip(head.parameters(), twin.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-10, rtol=1e-10)
    head.eval()
    assert torch.equal(
        getattr(head, call)(torch.cat(views), views=2), getattr(head, call)(torch.cat(views))
    )


def test_running_statistics_see_each_view() -> None:
    head = MoCoV3Head(5, 13, 7).double()
    twin = copy.deepcopy(head)
    views = different_views()
    head(torch.cat(views), views=2)
    for view in views:
        twin(view)
    for name, buffer in head.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))


def test_rows_that_are_no_whole_views_are_refused() -> None:
    with pytest.raises(ValueError, match="7 rows do not divide into 2"):
        BarlowTwinsHead(5, 13, 7)(torch.randn(7, 5), views=2)
