"""Gradients of gradients, tangents and per-sample gradients, whichever way attention goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from convit_ssl.models import GPSA, ConViT, ConViTConfig, attention
from convit_ssl.models.attention import SelfAttention
from convit_ssl.models.position import grid_positions
from convit_ssl.models.sdpa import fused_attention

GRID = (2, 3)
WAYS = ["separable", "by map", "map made again", "subset", "ungated", "dense", "plain"]
Parameters = dict[str, Tensor]


@pytest.fixture(params=WAYS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """A layer in double precision as a function of its input and parameters."""
    way = request.param
    if "map" in way:
        monkeypatch.setitem(attention.EXPLICIT_TOKENS, torch.float64, 100)
        monkeypatch.setattr(attention, "KEPT_TOKENS", 100 if way == "by map" else 0)
    made = SelfAttention(4, 2) if way == "plain" else GPSA(4, 2, use_gating=way != "ungated")
    made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    extra: tuple[object, ...] = () if way == "plain" else (GRID,)
    if way == "subset":
        extra = (GRID, grid_positions(GRID).double())
    if way == "dense":
        made.attn_drop.p = 1e-12
        assert made.path() == "dense"
    names = [name for name, _ in made.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        out: Tensor = torch.func.functional_call(made, given, (x, *extra))
        return out

    call.inputs = tuple(  # type: ignore[attr-defined]
        x.detach().clone().requires_grad_()
        for x in (torch.randn(2, 6, 4).double(), *made.parameters())
    )
    return call


def directions(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn_like(x) for x in inputs)


def moved(inputs: tuple[Tensor, ...], along: tuple[Tensor, ...], far: float) -> tuple[Tensor, ...]:
    return tuple((x + far * d).detach() for x, d in zip(inputs, along, strict=True))


def test_gradients_of_gradients(layer: Callable[..., Tensor]) -> None:
    inputs = layer.inputs  # type: ignore[attr-defined]
    assert torch.autograd.gradcheck(layer, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, inputs, fast_mode=True)


def test_tangents_are_finite_differences(layer: Callable[..., Tensor]) -> None:
    inputs = layer.inputs  # type: ignore[attr-defined]
    along = directions(inputs)
    out, tangent = torch.func.jvp(layer, inputs, along)
    torch.testing.assert_close(out, layer(*inputs))
    ahead, behind = (layer(*moved(inputs, along, far)) for far in (1e-5, -1e-5))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)
    for context in (torch.enable_grad, torch.no_grad):  # without `torch.func`
        pairs = zip(inputs, along, strict=True)
        with context(), forward_ad.dual_level():
            dual = layer(*(forward_ad.make_dual(x.detach(), d) for x, d in pairs))
            torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent)


def test_either_order_of_both_modes(layer: Callable[..., Tensor]) -> None:
    """Hessian times a direction: forward over reverse, reverse over forward, reverse twice."""
    inputs = tuple(x.detach() for x in layer.inputs)  # type: ignore[attr-defined]
    along = directions(inputs)
    every = tuple(range(len(inputs)))

    def loss(*inputs: Tensor) -> Tensor:
        return layer(*inputs).square().sum()

    gradient = torch.func.grad(loss, argnums=every)
    ahead, behind = (gradient(*moved(inputs, along, far)) for far in (1e-5, -1e-5))
    expected = [(a - b) / 2e-5 for a, b in zip(ahead, behind, strict=True)]

    def slope(*inputs: Tensor) -> Tensor:
        return torch.func.jvp(loss, inputs, along)[1]

    def projected(*inputs: Tensor) -> Tensor:
        pairs = zip(gradient(*inputs), along, strict=True)
        return torch.stack([(x * d).sum() for x, d in pairs]).sum()

    for found in (
        torch.func.jvp(gradient, inputs, along)[1],
        torch.func.grad(slope, argnums=every)(*inputs),
        torch.func.grad(projected, argnums=every)(*inputs),
    ):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_gradient_for_each_image(layer: Callable[..., Tensor]) -> None:
    x, *parameters = (x.detach() for x in layer.inputs)  # type: ignore[attr-defined]

    def loss(image: Tensor, *parameters: Tensor) -> Tensor:
        return layer(image.unsqueeze(0), *parameters).square().sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(len(parameters) + 1)))
    dims = (0, *(None for _ in parameters))
    # Dropout draws under vmap, even where next to nothing is dropped.
    found = torch.func.vmap(gradient, dims, randomness="different")(x, *parameters)
    for number, image in enumerate(x):
        expected = gradient(image, *parameters)
        torch.testing.assert_close([y[number] for y in found], list(expected))


CONFIG = ConViTConfig(
    img_size=24, patch_size=4, num_classes=3, embed_dim=24, depth=3, num_heads=4,
    num_gpsa_layers=2,
)  # fmt: skip


def gradient_of_a_gradient(model: ConViT, images: Tensor) -> list[Tensor]:
    first = torch.autograd.grad(
        model(images).square().sum(), list(model.parameters()), create_graph=True
    )
    penalty = torch.stack([x.square().sum() for x in first]).sum()
    return list(torch.autograd.grad(penalty, list(model.parameters())))


@pytest.mark.parametrize("side", [24, 16])  # 36 tokens by the fused kernel, 16 by maps
def test_a_gradient_penalty_of_a_whole_network(side: int) -> None:
    """As DINO's users and meta-learning want it, in float32 and without a context of PyTorch's."""
    model, images = ConViT(CONFIG), torch.randn(2, 3, side, side)
    with torch.no_grad():
        for block in model.blocks[:2]:
            block.attn.v.weight.normal_(std=0.2)
    found = gradient_of_a_gradient(model, images)
    with sdpa_kernel(SDPBackend.MATH):
        expected = gradient_of_a_gradient(model.double(), images.double())
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 1e-3 * other.norm()


def test_tangents_of_a_whole_network() -> None:
    model, images = ConViT(CONFIG).double(), torch.randn(2, 3, 24, 24).double()
    along = torch.randn_like(images)
    _, tangent = torch.func.jvp(model, (images,), (along,))
    with torch.no_grad():
        expected = (model(images + 1e-6 * along) - model(images - 1e-6 * along)) / 2e-6
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-8)


def test_training_goes_through_the_fused_kernel_with_its_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The formula is for derivatives of derivatives alone."""
    inputs = [torch.randn(1, 2, 40, 8, requires_grad=True) for _ in range(3)]
    expected = torch.autograd.grad(
        torch.nn.functional.scaled_dot_product_attention(*inputs).square().sum(), inputs
    )
    monkeypatch.setattr("convit_ssl.models.sdpa.content_map", None)
    found = torch.autograd.grad(fused_attention(*inputs).square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_backend_that_was_asked_for_is_used() -> None:
    query = torch.randn(1, 2, 40, 8, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert "FlashOnCpu" not in type(fused_attention(query, query, query).grad_fn).__name__
    assert "FlashOnCpu" in type(fused_attention(query, query, query).grad_fn).__name__


def test_batched_gradients_of_autograd_itself() -> None:
    inputs = [torch.randn(1, 2, 40, 8).double().requires_grad_() for _ in range(3)]
    out = fused_attention(*inputs)
    along = torch.randn(3, *out.shape).double()
    found = torch.autograd.grad(out, inputs, along, is_grads_batched=True, retain_graph=True)
    for number, direction in enumerate(along):
        expected = torch.autograd.grad(out, inputs, direction, retain_graph=True)
        torch.testing.assert_close([x[number] for x in found], list(expected))
