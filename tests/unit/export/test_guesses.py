"""What a file leaves open is guessed aloud, given, or refused: heads, eps, activation, images."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.errors import UserError
from convit_ssl.export import building, load_trunk
from convit_ssl.export.foreign import refuse_what_cannot_be
from convit_ssl.export.infer import config_from_tensors
from convit_ssl.export.keys import to_official
from convit_ssl.export.load import (
    activation,
    layer_norm_eps,
    say_how_to_set,
    set_layer_norm_eps,
)
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig, create_model
from tests.unit.export.foreign_files import HALF, check, official, transformers, under, vit


def test_heads_that_nothing_tells_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    model = vit(384, 12)
    torch.save(official(model), path)
    with pytest.raises(UserError, match=r"nothing was loaded.*6 \(DeiT.*12 \(MoCo v3"):
        load_trunk(path)
    check(path, model, num_heads=12, images=HALF)
    torch.save(official(vit(64, 4)), path)
    with pytest.raises(UserError, match=r"--num-heads N .*: 1, 2, 4, 8$"):
        load_trunk(path)
    with pytest.raises(UserError, match="not divisible by num_heads=3"):
        load_trunk(path, num_heads=3, images=HALF)


def test_eps_and_activation_of_transformers_are_not_guessed(tmp_path: Path) -> None:
    model = vit(768, 12, depth=1)
    set_layer_norm_eps(model, 1e-12)
    path = tmp_path / "pytorch_model.bin"
    torch.save(transformers(official(model)), path)
    with pytest.raises(UserError, match=r"config\.json beside it, or give --eps and --activation"):
        load_trunk(path, num_heads=12)
    with pytest.raises(UserError, match=r"or give --activation \("):
        load_trunk(path, eps=1e-12)
    with pytest.raises(UserError, match="how its images were normalised"):
        load_trunk(path, num_heads=12, eps=1e-12, activation="gelu")
    loaded = check(path, model, num_heads=12, eps=1e-12, activation="gelu", images=HALF)
    assert not any("eps" in text for text in loaded.provenance["guesses"])  # type: ignore[index,union-attr]
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1e-12, "hidden_act": "gelu"}')
    check(path, model, images=HALF)


def test_the_eps_of_a_convit_is_no_guess(tmp_path: Path) -> None:
    """The release and timm have the same, under the same names."""
    model = ConViT(ConViTConfig(img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=4,
                                num_gpsa_layers=1, num_classes=0))  # fmt: skip
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    guesses = load_trunk(path).provenance["guesses"]  # type: ignore[index]
    assert not any("eps" in text or "activation" in text for text in guesses)  # type: ignore[union-attr]


def test_every_guess_is_said_and_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "dino_vitbase16_pretrain.pth"  # whose code normalises by ImageNet's values
    model = vit(768, 12, depth=1)
    torch.save(official(model), path)
    guesses = " ".join(check(path, model).provenance["guesses"])  # type: ignore[index]
    for option in ("--num-heads", "--eps", "--activation", "--img-size", "--mean"):
        assert option in guesses, option
    images = {"mean": [0.5], "std": [0.5], "crop_ratio": 1.0, "interpolation": "bilinear"}
    given = {"num_heads": 12, "eps": 1e-3, "activation": "relu", "images": images}
    loaded = load_trunk(path, img_size=32, **given)
    assert loaded.provenance["guesses"] == []  # type: ignore[index]
    assert (layer_norm_eps(loaded), activation(loaded)) == (1e-3, "relu")
    assert loaded.provenance["entry"]["data"]["mean"] == [0.5] * 3  # type: ignore[index]
    for wrong in ({"eps": -1.0}, {"activation": "tanh"}, {"images": {"mean": [1.0, 2.0]}}):
        with pytest.raises(UserError):
            load_trunk(path, **{**given, **wrong})


def test_a_normalisation_that_nothing_tells_is_refused(tmp_path: Path) -> None:
    """Of timm's own networks with these names, more take 0.5 and 0.5 than ImageNet's."""
    path = tmp_path / "model.pth"
    model = vit(768, 12, depth=1)
    torch.save(official(model), path)
    with pytest.raises(UserError, match=r"nothing was loaded.*--mean 0\.5 --std 0\.5.*images="):
        load_trunk(path)
    with pytest.raises(UserError, match="give --std too"):
        load_trunk(path, images={"mean": [0.5]})
    loaded = check(path, model, images=HALF)
    assert loaded.provenance["entry"]["data"]["std"] == [0.5] * 3  # type: ignore[index]
    (tmp_path / "config.json").write_text('{"mean": [0, 0, 0], "std": [1, 1, 1]}')
    loaded = check(path, model)
    assert loaded.provenance["entry"]["data"]["std"] == [1.0] * 3  # type: ignore[index]


def test_training_says_how_to_set_a_guess(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dino_vitbase16_pretrain.pth"
    torch.save(official(vit(768, 12, depth=1)), path)
    say_how_to_set(load_trunk(path), str(path))
    assert "--eps X is weights_settings.eps=X" in caplog.text
    save_trunk(load_trunk(path), tmp_path / "ours.safetensors")
    caplog.clear()
    say_how_to_set(load_trunk(tmp_path / "ours.safetensors"), "ours")
    assert caplog.text == ""


def _as_a_plain_vit(model: Any) -> bool:
    """Whether the state dict of a network of timm loads as a plain ViT, by names and shapes."""
    try:
        tensors = to_official(dict(model.state_dict()))
        refuse_what_cannot_be(tensors, "model.pth")
        heads, size = model.blocks[0].attn.num_heads, model.patch_embed.img_size
        config = config_from_tensors(tensors, "model.pth", heads, size)
        own = building._shapes(config, tensors, "model.pth")
    except (UserError, AttributeError):
        return False
    left_out = ("pos_embed", *building._HEADS)
    theirs, ours = (
        {key: value.shape for key, value in state.items() if not key.startswith(left_out)}
        for state in (tensors, own)
    )
    return theirs == ours


def test_all_plain_vits_of_timm_have_the_eps_and_activation_that_are_assumed() -> None:
    """A bare file leaves both open; of timm's networks with these names, none differs."""
    timm = pytest.importorskip("timm")
    seen = {}
    for module in ("vision_transformer", "deit", "eva", "beit", "vision_transformer_hybrid"):
        for name in timm.list_models(module=module):
            with contextlib.suppress(TypeError, AssertionError), torch.device("meta"):
                model = timm.create_model(name, depth=1)
                if _as_a_plain_vit(model):
                    norms = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
                    seen[name] = (norms, type(model.blocks[0].mlp.act))
    assert {"vit_small_patch16_224", "deit3_base_patch16_224", "flexivit_base"} <= seen.keys()
    assert "vit_base_patch16_clip_quickgelu_224" not in seen and len(seen) >= 40
    assert {name for name, facts in seen.items() if facts != ({1e-6}, torch.nn.GELU)} == set()


@pytest.mark.parametrize("key", ["state_dict", "state_dict_ema"])
def test_the_training_script_of_timm_says_the_network_and_so_its_images(
    key: str, tmp_path: Path
) -> None:
    """timm's vit_tiny takes images of mean 0.5, DeiT those of ImageNet."""
    pytest.importorskip("timm")
    path = tmp_path / "last.pth.tar"
    model = vit(192, 3, depth=12)
    args = argparse.Namespace(model="vit_tiny_patch16_224", mean=None, std=None)
    for name, mean in (("vit_tiny_patch16_224", 0.5), ("deit_tiny_patch16_224", 0.485)):
        args.model = name
        torch.save({"arch": name, "args": args, key: official(model)}, path)
        loaded = check(path, model)
        assert loaded.provenance["entry"]["data"]["mean"][0] == mean  # type: ignore[index]
        assert not any("normalised" in text for text in loaded.provenance["guesses"])  # type: ignore[index]
    torch.save({"arch": name, "args": argparse.Namespace(mean=[0.1] * 3, std=[0.2] * 3),
                key: official(model)}, path)  # fmt: skip
    assert check(path, model).provenance["entry"]["data"]["mean"] == [0.1] * 3  # type: ignore[index]


def test_a_script_that_names_a_network_of_timm_may_have_images_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = tmp_path / "last.ckpt"
    model = vit(192, 3, depth=12)
    content = {"hyper_parameters": {"name": "vit_tiny_patch16_224"}}
    torch.save({**content, "state_dict": under("net.", official(model))}, path)
    with pytest.raises(UserError, match="how its images were normalised"):
        load_trunk(path)
    check(path, model, images=HALF)
    cfg = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}  # of the network it began with
    own = {"normalize_args": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    torch.save({**content, "lightly_train": {"models": cfg, **own},
                "state_dict": under("net.", official(model))}, path)  # fmt: skip
    assert check(path, model).provenance["entry"]["data"]["std"] == [0.2] * 3  # type: ignore[index]


def test_heads_that_the_tensors_of_a_convit_show_cannot_be_set(tmp_path: Path) -> None:
    model = create_model("convit_nano", img_size=32, patch_size=8, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    heads = model.config.num_heads
    assert load_trunk(tmp_path / "w.pth", num_heads=heads).config.num_heads == heads
    with pytest.raises(UserError, match=f"has {heads} attention heads.*leave --num-heads out"):
        load_trunk(tmp_path / "w.pth", num_heads=heads * 2)
