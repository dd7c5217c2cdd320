"""The network around the attention: init, shapes, intermediates, checkpointing, imports."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from convit_ssl.models import GPSA, VARIANTS, ConViT, ConViTConfig, create_model
from convit_ssl.models.convit import PatchEmbed

TINY = ConViTConfig(
    img_size=16, patch_size=4, num_classes=3, embed_dim=36, depth=4, num_heads=9,
    num_gpsa_layers=2,
)  # fmt: skip


def images(batch: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 3, height, width)


def test_every_variant_has_the_papers_shape() -> None:
    # Paper, Table 1; its DeiT rows are of other head counts.
    millions = {
        "convit_tiny": 5.7, "convit_tiny_plus": 10, "convit_small": 27.8,
        "convit_small_plus": 48.8, "convit_base": 86.5, "convit_base_plus": 153.1,
    }  # fmt: skip
    with torch.device("meta"):
        for name in VARIANTS:
            model = create_model(name)
            if name in millions:
                count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
                assert count == pytest.approx(millions[name], rel=0.005), name


@pytest.mark.parametrize("name", ["convit_nano", "convit_tiny", "convit_small"])
def test_the_assembled_model_starts_as_a_convolution(name: str) -> None:
    """Each head looks at its own offset of the kernel, and the values pass unchanged."""
    model = create_model(name, num_classes=0)
    height, width = grid = (7, 6)
    layers = [module for module in model.modules() if isinstance(module, GPSA)]
    assert len(layers) == model.config.num_gpsa_layers
    for layer in layers:
        assert torch.equal(layer.v.weight, torch.eye(model.embed_dim))
        kernel = math.isqrt(layer.num_heads)
        offsets = [(i // kernel - (kernel - 1) / 2, i % kernel - (kernel - 1) / 2)
                   for i in range(layer.num_heads)]  # fmt: skip
        position = layer.position_map(grid).unflatten(2, grid).unflatten(1, grid)
        centre = position[:, height // 2, width // 2]  # of a query away from the border
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        for head, (dx, dy) in enumerate(offsets):
            mean_x = (centre[head] * x).sum().item() - width // 2
            mean_y = (centre[head] * y).sum().item() - height // 2
            assert mean_x == pytest.approx(dx, abs=0.03)
            assert mean_y == pytest.approx(dy, abs=0.03)
        assert torch.equal(layer.gating_param, torch.ones(layer.num_heads))


def test_locality_strength_narrows_the_initial_attention() -> None:
    wide, narrow = (
        create_model("convit_nano", locality_strength=strength).blocks[0].attn.position_map((8, 8))
        for strength in (0.5, 2.0)
    )
    assert narrow.amax(-1).mean() > wide.amax(-1).mean()


@pytest.mark.parametrize("num_gpsa_layers", [0, 2])
def test_logits_features_and_tokens(num_gpsa_layers: int) -> None:
    model = ConViT(replace(TINY, num_gpsa_layers=num_gpsa_layers)).eval()
    x = images()
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 17, 36)
    assert model(x).shape == (2, 3)
    assert torch.equal(model.forward_head(tokens, pre_logits=True), tokens[:, 0])
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert torch.equal(model(x), tokens[:, 0])
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("side", [16, 24, 40])  # of 16, 36 and 100 tokens
@pytest.mark.parametrize("path", ["separable", "dense", "subset", "ungated", "plain"])
def test_a_batch_without_images(path: str, side: int, half: bool) -> None:
    """A process may get none of a last batch, or a detector no regions."""
    changes: dict[str, dict[str, float]] = {
        "dense": {"attn_drop_rate": 0.1}, "ungated": {"use_gating": False},
        "plain": {"num_gpsa_layers": 0},
    }  # fmt: skip
    model, x = ConViT(replace(TINY, **changes.get(path, {}))), images(0, side, side)  # type: ignore[arg-type]
    keep = torch.zeros(0, 7, dtype=torch.long) if path == "subset" else None

    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            return model.forward_head(model.forward_features(x, keep))

    for training in (True, False):
        model.train(training).zero_grad()
        out = run()
        assert out.shape == (0, 3)
        out.float().sum().backward()
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                assert run().shape == (0, 3)
    if keep is None:
        assert model.forward_intermediates(x, return_attention=True)[0].shape[0] == 0


def test_an_image_that_the_patch_does_not_divide() -> None:
    with pytest.raises(ValueError, match="image width 18 is not a multiple of patch_size=4"):
        ConViT(TINY)(images(width=18))


def test_tokens_that_do_not_fill_the_grid() -> None:
    layer = ConViT(TINY).blocks[0].attn
    with pytest.raises(ValueError, match="12 tokens do not fill a grid of 4 x 4 patches"):
        layer(torch.randn(1, 12, 36), (4, 4))


def test_intermediates() -> None:
    model = ConViT(TINY).eval()
    x = images(height=20)
    tokens, inside = model.forward_intermediates(x, return_attention=True)
    torch.testing.assert_close(tokens, model.forward_features(x))
    assert [t.shape[1] for t in inside.tokens] == [20, 20, 21, 21]
    assert torch.equal(model.norm(inside.tokens[-1]), tokens)
    for index in range(4):
        maps = inside.attention[index]
        assert maps is not None
        torch.testing.assert_close(maps.mixed.sum(-1), torch.ones(maps.mixed.shape[:-1]))
        gate = inside.gates[index]
        if index < 2:
            assert gate is not None
            torch.testing.assert_close(gate, model.blocks[index].attn.gate)
            assert maps.position is not None
            assert maps.position.shape == (9, 20, 20)
        else:
            assert gate is None
            assert maps.position is None
            assert maps.gate is None
    _, plain = model.forward_intermediates(x)
    assert plain.attention == [None] * 4


def test_get_intermediate_layers() -> None:
    model = ConViT(TINY).eval()
    x = images(height=20)
    (last,) = model.get_intermediate_layers(x)
    torch.testing.assert_close(last, model.forward_features(x))
    (raw,) = model.get_intermediate_layers(x, norm=False)
    torch.testing.assert_close(model.norm(raw), last)
    shapes = [layer.shape[1] for layer in model.get_intermediate_layers(x, n=3)]
    assert shapes == [20, 21, 21]
    for patches, class_token in model.get_intermediate_layers(
        x, n=2, reshape=True, return_class_token=True
    ):
        assert patches.shape == (2, 36, 5, 4)
        assert class_token.shape == (2, 36)
    assert torch.equal(patches.flatten(2).transpose(1, 2), last[:, 1:])
    assert torch.equal(class_token, last[:, 0])
    with pytest.raises(ValueError, match="block 1 is a GPSA block without a class token"):
        model.get_intermediate_layers(x, n=3, return_class_token=True)


def test_gradient_checkpointing_changes_nothing() -> None:
    model = ConViT(TINY).train()
    x = images()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]

    plain = gradients()
    model.set_grad_checkpointing()
    for expected, actual in zip(plain, gradients(), strict=True):
        assert torch.equal(expected, actual)


def test_stochastic_depth_and_dropout_act_in_training_only() -> None:
    model = ConViT(replace(TINY, drop_path_rate=0.5, drop_rate=0.2))
    x = images()
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    assert [block.drop_path.drop_prob for block in model.blocks[1:]] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6]
    )


@pytest.mark.parametrize("keep", [None, torch.arange(7).expand(2, -1)])
def test_attention_dropout_drops_entries_of_the_mixed_map(keep: Tensor | None) -> None:
    """With everything dropped nothing passes; the mean over many draws is the plain output."""
    model = ConViT(replace(TINY, attn_drop_rate=0.3))
    layer = model.blocks[0].attn
    draws = 1500
    x = torch.randn(2, 16 if keep is None else 7, 36)
    positions = None if keep is None else torch.stack([keep % 4, keep // 4], dim=-1)
    expected = layer.eval()(x, (4, 4), positions)
    layer.train()
    x = x.repeat(draws, 1, 1)
    positions = None if positions is None else positions.repeat(draws, 1, 1)
    out = layer(x, (4, 4), positions).unflatten(0, (draws, 2))
    assert not torch.equal(out[0], out[1])
    assert (out.mean(0) - expected).abs().max() < 0.1 * expected.abs().max()
    layer.attn_drop.p = 1.0
    dropped = layer(x, (4, 4), positions)
    torch.testing.assert_close(dropped, layer.proj.bias.expand_as(dropped))


def test_meta_device() -> None:
    with torch.device("meta"):
        model = create_model("convit_small", drop_path_rate=0.1)
    assert next(model.parameters()).is_meta


def test_importing_the_models_imports_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); from convit_ssl.models import convit_small; "
        "print([name for name in ('vissl', 'hydra', 'matplotlib', 'timm', 'torchvision', "
        "'classy_vision', 'omegaconf', 'convit_ssl.compat', 'torch._dynamo') "
        "if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_intermediate_layers_by_number() -> None:
    model = create_model("convit_nano", img_size=32, num_classes=0).eval()
    x = torch.randn(1, 3, 32, 32)
    every = model.get_intermediate_layers(x, n=model.config.depth)
    chosen = model.get_intermediate_layers(x, n=[0, 5])
    assert torch.equal(chosen[0], every[0])
    assert torch.equal(chosen[1], every[5])
    with pytest.raises(ValueError, match="block 0 is a GPSA block"):
        model.get_intermediate_layers(x, n=[0, 5], return_class_token=True)


@pytest.mark.parametrize(("size", "channels", "patch"), [((32, 48), 3, 8), ((12, 4), 1, 4)])
def test_patches_as_a_product_are_those_of_the_convolution(
    size: tuple[int, int], channels: int, patch: int
) -> None:
    """On a GPU the convolution is written as a product; here both run on the CPU."""
    embed = PatchEmbed(patch, channels, 10).double()
    images = torch.randn(2, channels, *size).double().requires_grad_()
    inputs = (images, embed.proj.weight, embed.proj.bias)
    expected, found = embed(images), embed._product(images)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, weights), torch.autograd.grad(expected, inputs, weights)
    )


def test_patches_go_through_a_layer_that_is_watched_or_was_replaced() -> None:
    embed = PatchEmbed(4, 3, 10)
    assert embed._is_a_product()
    hook = embed.proj.register_forward_hook(lambda *_: None)
    assert not embed._is_a_product()
    hook.remove()
    assert embed._is_a_product()
    for other in (nn.Conv2d(3, 10, 4, 2), nn.Sequential(nn.Conv2d(3, 10, 4, 4))):
        embed.proj = other  # type: ignore[assignment]
        assert not embed._is_a_product()
