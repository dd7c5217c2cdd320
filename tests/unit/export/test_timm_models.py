"""What timm asks of every model of its own holds for ours.

The checks are those of timm's test suite (tests/test_models.py of version 1.0), in our words.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import convit_ssl.export.timm_models as timm_models
from convit_ssl.models import VARIANTS, ConViT

NAMES = ("convit_ssl_nano", "convit_ssl_deit_nano")


def create(name: str = "convit_ssl_nano", **options: Any) -> Any:
    return timm.create_model(name, **options).eval()


def images(count: int = 2, channels: int = 3, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.randn(count, channels, *size)


def test_all_variants_are_registered() -> None:
    ours = {timm_models.timm_name(variant) for variant in VARIANTS}
    assert ours <= set(timm.list_models("convit_ssl_*"))
    assert timm_models.timm_name("deit_small") == "convit_ssl_deit_small"
    assert set(timm.list_models(module="timm_models")) >= ours


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_shapes(name: str) -> None:
    model = create(name)
    logits = model(images())
    assert logits.shape == (2, 1000)
    assert logits.isfinite().all()
    assert model(images(size=(24, 40))).shape == (2, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = create(name, num_classes=42).train()
    assert sum(1 for _ in model.parameters()) == sum(1 for _ in model.named_parameters())
    out = model(images())
    out.mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert out.shape == (2, 42)


@pytest.mark.parametrize("name", NAMES)
def test_default_configuration(name: str) -> None:
    model = create(name)
    config = model.default_cfg
    assert config["input_size"] == (3, 32, 32)
    assert config["num_classes"] == 1000
    width = model.num_features
    assert model.head_hidden_size == width
    unpooled = model.forward_features(images())
    assert unpooled.shape == (2, 65, width)
    assert model.forward_head(unpooled).shape == (2, 1000)
    assert model.forward_head(unpooled, pre_logits=True).shape == (2, width)
    model.reset_classifier(0)
    assert model(images()).shape == (2, width)
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, 65, width)
    model.reset_classifier(7, "avg")
    assert model(images()).shape == (2, 7)
    assert model.num_classes == model.config.num_classes == 7
    assert create(name, num_classes=0).get_classifier().__class__ is nn.Identity
    assert create(name, num_classes=0, global_pool="")(images()).shape == (2, 65, width)
    # Where timm puts new classifiers and first convolutions.
    keys = model.state_dict().keys()
    assert f"{config['classifier']}.weight" in keys
    assert f"{config['first_conv']}.weight" in keys


def test_pooling_is_what_it_says() -> None:
    model = create(num_classes=0)
    tokens = model.forward_features(images())
    torch.testing.assert_close(model.forward_head(tokens), tokens[:, 0])
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model.forward_head(tokens), tokens[:, 1:].mean(1))
    for wrong in (lambda: model.reset_classifier(0, "max"), lambda: create(global_pool="map")):
        with pytest.raises(ValueError, match="global_pool"):
            wrong()


def test_options() -> None:
    grey = create(in_chans=1, num_classes=0, img_size=48)
    assert grey(images(channels=1, size=(48, 48))).shape == (2, 128)
    assert grey.pos_embed.shape[1] == 144
    assert create(drop_path_rate=0.5).config.drop_path_rate == 0.5
    with pytest.raises(TypeError, match="no option depht"):
        create(depht=3)
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        create(pretrained=True)


@pytest.mark.parametrize("name", NAMES)
def test_features_only(name: str) -> None:
    model = create(name, features_only=True, in_chans=1, img_size=64)
    x = images(channels=1, size=(64, 48))
    maps = model(x)
    info = model.feature_info
    assert len(maps) == len(info.channels()) == len(info.reduction()) == 3
    for feature, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert feature.shape == (2, channels, 64 // reduction, 48 // reduction)
        assert feature.isfinite().all()
    for indices in ((0,), (1, 3), (-1,), (2, -2)):
        chosen = create(name, features_only=True, out_indices=indices)
        assert len(chosen(images())) == len(indices)


@pytest.mark.parametrize("name", NAMES)
def test_intermediates(name: str) -> None:
    model = create(name)
    x = images()
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    assert len(maps) == 6
    (last,) = model.forward_intermediates(x, [5], norm=True, intermediates_only=True)
    torch.testing.assert_close(last.flatten(2).mT, final[:, 1:])
    tokens = model.forward_intermediates(x, 2, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(tokens[0].mT.unflatten(2, (8, 8)), maps[4])
    early = model.forward_intermediates(x, [1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[1])
    assert len(model.blocks) == 6
    for wrong in ([6], [-7], 0, 7):
        with pytest.raises(ValueError, match="there are 6 blocks"):
            model.forward_intermediates(x, wrong)
    with pytest.raises(ValueError, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("indices", [[0, 2], [1, 5], 1])
def test_pruned_models_give_the_same_maps(indices: Any) -> None:
    model = create()
    x = images()
    expected = model.forward_intermediates(x, indices, intermediates_only=True)
    kept = model.prune_intermediate_layers(indices, prune_norm=True)
    assert len(model.blocks) == max(kept) + 1
    for one, other in zip(
        model.forward_intermediates(x, kept, intermediates_only=True), expected, strict=True
    ):
        torch.testing.assert_close(one, other)


def test_dino_and_project_interfaces() -> None:
    model = create(num_classes=0)
    x = images()
    (last,) = model.get_intermediate_layers(x, 1, reshape=True)
    assert last.shape == (2, 128, 8, 8)
    trunk = model.trunk
    assert type(trunk) is ConViT
    _, inside = trunk.forward_intermediates(x, return_attention=True)
    assert inside.attention[0].mixed.shape == (2, 4, 64, 64)
    assert trunk.pos_embed is model.pos_embed


def test_learning_rate_groups_and_decay() -> None:
    from timm.optim import param_groups_layer_decay

    model = create()
    groups = param_groups_layer_decay(
        model, weight_decay=0.1, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay()
    )
    names = {id(p): key for key, p in model.named_parameters()}
    scale = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    assert scale["head.weight"] == (1.0, 0.1)
    assert scale["blocks.0.attn.gating_param"][1] == 0
    assert scale["pos_embed"][1] == scale["cls_token"][1] == 0
    assert scale["blocks.0.attn.v.weight"][0] < scale["blocks.5.attn.qkv.weight"][0] < 1


def test_copies_pickles_compiled_and_checkpointed() -> None:
    model = create(num_classes=0)
    x = images()
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), expected)
    model.train().set_grad_checkpointing(True)
    torch.testing.assert_close(model(x), expected)


def test_weights_of_any_layout_and_size_load_through_timm(tmp_path: Path) -> None:
    source = create(num_classes=0)
    wrapped = {f"module.backbone.{k}": v for k, v in source.state_dict().items()}
    torch.save({"student": wrapped, "teacher": wrapped}, tmp_path / "dino.pth")
    overlay = {"file": str(tmp_path / "dino.pth"), "num_classes": 0}
    loaded = create(num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay)
    x = images()
    torch.testing.assert_close(loaded(x), source(x))
    larger = create(num_classes=0, img_size=48, pretrained=True, pretrained_cfg_overlay=overlay)
    x = images(size=(48, 48))
    torch.testing.assert_close(larger(x), source(x), rtol=0, atol=1e-5)


FX = """
import convit_ssl.compat
convit_ssl.compat.install()
import timm, torch
import convit_ssl.export.timm_models
from timm.models import create_feature_extractor, get_graph_node_names
for name in ("convit_ssl_nano", "convit_ssl_deit_nano"):
    model = timm.create_model(name, num_classes=5).eval()
    x = torch.randn(2, 3, 32, 32)
    nodes = get_graph_node_names(model)[1]
    graph = create_feature_extractor(model, [nodes[-1], "blocks.1.add_1"])
    found = graph(x)
    out, block = found[nodes[-1]], found["blocks.1.add_1"]
    torch.testing.assert_close(out, model(x))
    torch.testing.assert_close(block, model.trunk.forward_intermediates(x)[1].tokens[1])
    graph(torch.randn(1, 3, 48, 32))
    out.mean().backward()
"""


@pytest.mark.slow
def test_feature_extraction_by_tracing() -> None:
    """In a process of its own: shape checks of the test run would meet fx's proxies."""
    subprocess.run([sys.executable, "-c", FX], check=True, timeout=580)
