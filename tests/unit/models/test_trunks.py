"""Networks of timm and of plugins as trunks: what they are built from, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convit_ssl.errors import UserError
from convit_ssl.models import trunks
from convit_ssl.models.trunks import (
    OtherTrunk,
    TrunkConfig,
    UncountedError,
    build_trunk,
    count_parameters,
    measured,
    operations_of,
    register_trunk,
    single_position_strided,
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunks, "TRUNKS", dict(trunks.TRUNKS))


def test_a_vision_transformer_of_timm_takes_crops_of_several_sizes() -> None:
    config = measured(TrunkConfig("timm:test_vit", 64, drop_path_rate=0.1), (64, 32))
    trunk = build_trunk(config)
    assert isinstance(trunk, OtherTrunk) and not trunk.ignored & {"drop_path_rate", "img_size"}
    for side in (64, 32):
        assert trunk(torch.zeros(2, 3, side, side)).shape == (2, config.embed_dim)
    assert not trunk.normalises_batches()
    assert trunk.patch_projection() is not None


def test_layers_and_exemptions_from_decay_are_those_of_timm() -> None:
    trunk = OtherTrunk(TrunkConfig("timm:test_vit", 32))
    layers, head = trunk.layers()
    named = {name: layers[parameter] for name, parameter in trunk.network.named_parameters()}
    assert named["pos_embed"] == named["patch_embed.proj.weight"] == 0
    assert named["blocks.0.attn.qkv.weight"] < named["blocks.5.attn.qkv.weight"] < head
    names = dict(trunk.network.named_parameters())
    assert {names["pos_embed"], names["cls_token"]} <= trunk.without_decay()


def test_a_convnet_says_what_it_does_not_have() -> None:
    trunk = OtherTrunk(TrunkConfig("timm:test_resnet", 32, attn_drop_rate=0.1))
    assert {"attn_drop_rate", "img_size"} <= trunk.ignored
    assert trunk.normalises_batches()
    assert trunk(torch.zeros(2, 3, 40, 24)).shape[0] == 2


@pytest.mark.parametrize(
    ("name", "sides", "message"),
    [
        ("timm:vit_tny_patch16_224", (32,), "did you mean timm:vit_tiny_patch16_224"),
        ("timm:hf-hub:somebody/model", (32,), "timm .* has no network 'hf-hub:somebody/model'"),
        ("timm:local-dir:/tmp", (32,), "timm .* has no network"),
        ("timm:test_vit", (32, 20), "cannot take images of 20 x 20 px .*divisible by patch size"),
        ("nothing", (32,), "unknown trunk 'nothing' .available: resnet50, timm:NAME"),
    ],
)
def test_what_is_not_there_or_does_not_fit(name: str, sides: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(TrunkConfig(name, 32), sides)


def test_a_plugins_trunk_gets_the_options_that_it_declares() -> None:
    seen: dict[str, object] = {}

    @register_trunk("mine")
    def mine(in_chans: int, drop_path_rate: float = 0.0) -> nn.Module:
        seen.update(in_chans=in_chans, drop_path_rate=drop_path_rate)
        return nn.Conv2d(in_chans, 7, 3)

    config = measured(TrunkConfig("mine", 16, in_chans=5, drop_path_rate=0.2), (16, 8))
    assert config.embed_dim == 7  # the mean over the map
    assert seen == {"in_chans": 5, "drop_path_rate": 0.2}
    assert count_parameters(config) == 5 * 7 * 9 + 7


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: 3, "its factory returns int"),
        (lambda: nn.Unflatten(1, (1, 3)), "returns .2, 1, 3, 16, 16., but features"),
        (lambda: 1 / 0, "cannot be built: ZeroDivisionError: division"),
    ],
)
def test_a_factory_that_is_wrong_is_named(factory: trunks.Factory, message: str) -> None:
    trunks.TRUNKS["wrong"] = factory
    with pytest.raises(UserError, match=message):
        measured(TrunkConfig("wrong", 16), (16,))


def test_names_are_taken_once() -> None:
    for name in ("timm:mine", "resnet50"):
        with pytest.raises(UserError, match="cannot be named"):
            register_trunk(name)(lambda: nn.Identity())


def test_resnet50_has_vissls_parameters_and_its_operations_are_counted() -> None:
    config = TrunkConfig("resnet50", 32)
    assert count_parameters(config) == 23_508_032
    assert 1.5e8 < operations_of(config, 32) < 2e8  # 8.2e9 at 224 px
    with pytest.raises(UncountedError):
        operations_of(TrunkConfig("timm:test_vit", 32), 20)


@pytest.mark.parametrize(
    ("name", "side", "strided"),
    [
        ("resnet50", 8, True),
        ("resnet50", 16, True),
        ("resnet50", 17, False),
        ("resnet50", 96, False),
        ("timm:test_resnet", 16, True),
        ("timm:test_vit", 64, False),
    ],
)
def test_strides_over_maps_of_one_position_are_seen(name: str, side: int, strided: bool) -> None:
    assert single_position_strided(TrunkConfig(name, side), side) is strided


def test_resnet50_has_wrong_gradients_nowhere_else_in_bfloat16() -> None:
    """At the smallest crops that are allowed, a few steps' gradients are finite and alike."""
    network = build_trunk(TrunkConfig("resnet50", 17)).train()
    images = torch.randn(4, 3, 17, 17)
    for _ in range(3):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(images)
        out.float().square().mean().backward()
        largest = max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None)
        assert largest < 1e3
