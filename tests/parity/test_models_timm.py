"""Our ConViT against timm's, on the same random weights, for the paper's six sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convit_ssl.models import VARIANTS, ConViT, create_model

SIZES = ["tiny", "tiny_plus", "small", "small_plus", "base", "base_plus"]


def timm_convit(name: str) -> nn.Module:
    """timm's network of a variant's size; it has no names for the larger half of them."""
    from timm.models.convit import ConVit

    config = VARIANTS[name]
    return ConVit(
        embed_dim=config.embed_dim // config.num_heads,
        num_heads=config.num_heads,
        local_up_to_layer=config.num_gpsa_layers,
    )


def randomise(model: nn.Module) -> None:
    """Learned-looking weights: no identity values, gates from 0.1 to 0.9, tilted positions."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gating_param"):
                parameter.uniform_(-2, 2)
            elif name.endswith("pos_proj.weight"):
                parameter.normal_(std=0.3)
            elif parameter.dim() >= 2 and "embed" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.2)


def shared_pair(size: str) -> tuple[ConViT, nn.Module]:
    with torch.device("meta"):
        ours, theirs = create_model(f"convit_{size}"), timm_convit(f"convit_{size}")
    ours, theirs = ours.to_empty(device="cpu"), theirs.to_empty(device="cpu")
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def gradients(model: nn.Module, images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    logits = model(images)
    (logits * weights).sum().backward()
    return logits.detach()


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_every_gradient(size: str) -> None:
    ours, theirs = shared_pair(size)
    images = torch.randn(1, 3, 224, 224)
    weights = torch.randn(1, 1000) / 1000
    expected = gradients(theirs, images, weights)
    logits = gradients(ours, images, weights)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)

    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        grad, expected_grad = parameter.grad, reference[name].grad
        if name.endswith("pos_proj.bias"):
            # The softmax does not see it: rounding noise there, exactly nothing here.
            assert grad.abs().max() == 0, name
            continue
        error = (grad - expected_grad).abs().max() / expected_grad.abs().max()
        assert error <= 1e-4, f"{name}: {error:.1e}"


@pytest.mark.parametrize("size", SIZES)
def test_keys_and_shapes_are_the_official_ones(size: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(f"convit_{size}"), timm_convit(f"convit_{size}")
    mine = {name: value.shape for name, value in ours.state_dict().items()}
    assert mine == {name: value.shape for name, value in theirs.state_dict().items()}


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_strict_loading_both_ways(size: str) -> None:
    ours, theirs = create_model(f"convit_{size}"), timm_convit(f"convit_{size}")
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back = create_model(f"convit_{size}")
    back.load_state_dict(theirs.state_dict(), strict=True)
    for name, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_initial_positional_attention_is_timms(size: str) -> None:
    """The assembled models, after every init: same centres, same identity values."""
    ours, theirs = create_model(f"convit_{size}"), timm_convit(f"convit_{size}")
    for mine, other in zip(ours.blocks[:10], theirs.blocks[:10], strict=True):
        assert torch.equal(mine.attn.pos_proj.weight, other.attn.pos_proj.weight)
        assert torch.equal(mine.attn.v.weight, other.attn.v.weight)
        assert torch.equal(mine.attn.gating_param, other.attn.gating_param)
