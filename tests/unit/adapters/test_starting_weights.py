"""A run that starts from other weights computes what they computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from convit_ssl.adapters.teachers import open_classifier, open_teacher
from convit_ssl.adapters.train_step import train_step
from convit_ssl.adapters.weights import entry_of_trunk, initialise
from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.files import ENTRY
from convit_ssl.export.load import layer_norm_eps, set_layer_norm_eps
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.from_vit import GATE_OF_VIT
from convit_ssl.schema import Experiment
from tests.golden.tiny import SMALL, counted_batches, tiny_task

CONFIG = ConViTConfig(
    img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=4, num_gpsa_layers=1, num_classes=0
)
VIT = dataclasses.replace(CONFIG, qkv_bias=True)


def start(path: Path, config: ConViTConfig = CONFIG, **said: Any) -> Any:
    model: Any = SimpleNamespace(trunk=ConViT(config).eval())
    tree = OmegaConf.structured(Experiment)
    tree.weights, tree.trunk.num_heads = str(path), config.num_heads
    for name, value in said.items():
        tree.weights_settings[name] = value
    initialise(model, tree)
    return model


def test_the_eps_of_the_weights_comes_along_and_is_kept(tmp_path: Path) -> None:
    source = ConViT(CONFIG).eval()
    set_layer_norm_eps(source, 1e-3)
    save_trunk(source, tmp_path / "source.torch")
    model = start(tmp_path / "source.torch")
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(model.trunk(images), source(images))
    entry = entry_of_trunk(model)
    assert entry == {"layer_norm_eps": 1e-3}
    # As a checkpoint of the run says it.
    content = torch.load(tmp_path / "source.torch", weights_only=True)
    del content[ENTRY]["layer_norm_eps"]
    content[ENTRY].update(entry)
    torch.save(content, tmp_path / "saved.torch")
    assert layer_norm_eps(load_trunk(tmp_path / "saved.torch")) == 1e-3


def test_biases_of_queries_keys_and_values_come_along(tmp_path: Path) -> None:
    source = ConViT(dataclasses.replace(VIT, num_gpsa_layers=0)).eval()
    for block in source.blocks:
        torch.nn.init.normal_(block.attn.qkv.bias)
    save_trunk(source, tmp_path / "vit.torch")
    words = ("trunk.num_gpsa_layers=1", "trunk.gate_start=0.2", "trunk.global_pool=avg")
    for more in ((), words):
        made = plan_of(tmp_path / "vit.torch", *more)
        model: Any = SimpleNamespace(trunk=ConViT(made.trunk).eval())
        initialise(model, OmegaConf.create(made.options))
        state = model.trunk.state_dict()
        if more:
            assert torch.equal(state["blocks.0.attn.qk.bias"], source.blocks[0].attn.qkv.bias[:32])
            assert torch.allclose(model.trunk.blocks[0].attn.gate, torch.tensor(0.2))
        else:
            assert torch.equal(state["blocks.0.attn.qkv.bias"], source.blocks[0].attn.qkv.bias)


def test_a_convit_takes_the_shape_of_the_vit(tmp_path: Path) -> None:
    save_trunk(ConViT(dataclasses.replace(VIT, num_gpsa_layers=0)), tmp_path / "vit.torch")
    made = plan_of(tmp_path / "vit.torch", "trunk.num_gpsa_layers=1")
    trunk = made.trunk
    assert (trunk.embed_dim, trunk.num_heads, trunk.num_gpsa_layers, trunk.qkv_bias) == (
        16, 4, 1, True,
    )  # fmt: skip
    assert made.options["trunk"]["gate_start"] == GATE_OF_VIT
    for word, message in {
        "trunk.num_gpsa_layers=2": "use at most 1",
        "trunk=convit_nano trunk.num_gpsa_layers=1": "leave trunk out",
        "trunk.num_gpsa_layers=1 trunk.use_gating=false": "no content half",
        "trunk.num_gpsa_layers=1 optim.freeze_epochs=4": "would never be trained",
    }.items():
        with pytest.raises(UserError, match=message):
            plan_of(tmp_path / "vit.torch", *word.split())


def test_gates_that_were_trained_are_not_set(tmp_path: Path) -> None:
    save_trunk(ConViT(CONFIG), tmp_path / "source.torch")
    with pytest.raises(UserError, match="has its own"):
        plan_of(tmp_path / "source.torch", "trunk.gate_start=0.5")


def test_impulses_are_for_new_gpsa_layers(tmp_path: Path) -> None:
    save_trunk(ConViT(CONFIG), tmp_path / "source.torch")
    with pytest.raises(UserError, match="has trained heads"):
        plan_of(tmp_path / "source.torch", "trunk.impulses=true")
    with pytest.raises(UserError, match="has none; leave it out"):
        plan_of(None, "trunk.impulses=true", "trunk=deit_nano", "trunk.num_gpsa_layers=0")
    made = plan_of(None, "trunk.impulses=true", "trunk=convit_nano")
    assert made.config["MODEL"]["TRUNK"]["CONVIT_SSL"]["IMPULSES"] is True
    with pytest.raises(UserError, match="has no"):
        plan_of(None, "trunk.impulses=true", "trunk=timm:resnet18")


def test_a_trunk_of_random_weights_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="starts from random ones"):
        plan_of(None, "optim.freeze_epochs=1")


def test_the_trunk_is_held_and_then_released() -> None:
    task = tiny_task("convit_simclr")
    task.options.optim.freeze_epochs = 0.2  # two of ten steps
    task.data_iterator = counted_batches(task)
    trunk = task.base_model.trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    for step in range(3):
        head = next(task.base_model.heads.parameters()).detach().clone()
        train_step(task)
        task.iteration += 1
        same = all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
        assert same == (step < 2)
        assert step == 0 or not torch.equal(next(task.base_model.heads.parameters()), head)


def plan_of(weights: Path | None, *more: str) -> Any:
    words = f"config=convit_simclr {SMALL}".split()
    words = [word for word in words if weights is None or not word.startswith("trunk")]
    return make_plan(compose_experiment([*words, *([f"weights={weights}"] * bool(weights)), *more]))


def test_ours_needs_no_word(tmp_path: Path) -> None:
    save_trunk(ConViT(CONFIG), tmp_path / "source.torch")
    assert entry_of_trunk(start(tmp_path / "source.torch")) == {}


PLAIN = ConViTConfig(
    img_size=(8, 32), patch_size=4, embed_dim=24, depth=2, num_heads=3, num_gpsa_layers=0,
    num_classes=5, qkv_bias=True,
)  # fmt: skip
SAID = {"num_heads": 3, "eps": 1e-3, "img_size": [8, 32], "mean": [0.5], "std": [0.25]}


def foreign(folder: Path) -> tuple[Path, ConViT]:
    """A file of which nothing says heads, eps, grid or normalisation, and its network."""
    model = ConViT(PLAIN).eval()
    set_layer_norm_eps(model, 1e-3)
    torch.nn.init.normal_(model.pos_embed)
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth", model


def normalised(images: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    return (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def test_what_a_file_leaves_open_is_set_by_options(tmp_path: Path) -> None:
    """Heads, eps, the oblong grid, and the normalisation, which moves into the patches."""
    path, model = foreign(tmp_path)
    with pytest.raises(UserError, match="nothing was loaded"):
        start(path, PLAIN)
    images = torch.rand(2, 3, 8, 32)
    ours = normalised(images, IMAGENET_MEAN, IMAGENET_STD)
    with torch.inference_mode():
        expected = model(normalised(images, [0.5] * 3, [0.25] * 3))
        found = start(path, PLAIN, **SAID).trunk(ours)
        teacher = open_classifier(str(path), SAID)(ours)
        features = open_teacher(str(path), SAID)(ours).image
        own = model.forward_features(normalised(images, [0.5] * 3, [0.25] * 3))[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(features, own, rtol=0, atol=1e-5)


def test_a_network_of_a_hub_says_it_itself() -> None:
    with pytest.raises(UserError, match=r"teacher_settings\.eps is for weights files"):
        open_teacher("timm:vit_tiny_patch16_224", {"eps": 1e-5})
