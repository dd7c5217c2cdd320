"""Small checkpoints in the layouts of other tools: they load as they were, or are refused."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export import building, load_trunk
from convit_ssl.export.foreign import refuse_what_cannot_be
from convit_ssl.export.infer import config_from_tensors
from convit_ssl.export.keys import to_official
from convit_ssl.export.load import (
    activation,
    layer_norm_eps,
    say_how_to_set,
    set_activation,
    set_layer_norm_eps,
)
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig, create_model

State = dict[str, Tensor]

HALF = {"mean": [0.5], "std": [0.5]}  # of images


def vit(width: int = 64, heads: int = 4, size: Any = 32, depth: int = 2, seed: int = 1) -> ConViT:
    """A plain ViT as if trained; ours, so that what others name otherwise is computed alike."""
    config = ConViTConfig(
        img_size=size, patch_size=8, num_classes=0, embed_dim=width, depth=depth, num_heads=heads,
        num_gpsa_layers=0, qkv_bias=True, local_init=False,
    )  # fmt: skip
    model = ConViT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def official(model: ConViT) -> State:
    """As DINO and timm save it: a position embedding for the class token, too."""
    state = dict(model.state_dict())
    extra = torch.full_like(state["cls_token"], 0.25)
    state["cls_token"] = state["cls_token"] - extra
    return {**state, "pos_embed": torch.cat([extra, state["pos_embed"]], dim=1)}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def transformers(state: State, dinov2: bool = False) -> State:
    """The names of Hugging Face's ViT or DINOv2."""
    names = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "blocks": "encoder.layer",
        "norm.": "layernorm.", "attn.proj": "attention.output.dense",
    }  # fmt: skip
    if not dinov2:
        names |= {
            "norm1": "layernorm_before", "norm2": "layernorm_after",
            "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
        }  # fmt: skip
    renamed: State = {}
    for key, value in state.items():
        if "attn.qkv" in key:
            block, kind = key.split(".")[1], key.rpartition(".")[2]
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"encoder.layer.{block}.attention.attention.{name}.{kind}"] = part
            continue
        for old, new in names.items():
            if key.startswith(old) or f".{old}" in key:
                key = key.replace(old, new)
        renamed[key] = value
    return renamed


def check(path: Path, model: ConViT, **options: Any) -> ConViT:
    loaded = load_trunk(path, **options)
    images = torch.randn(2, 3, *model.config.image_shape, generator=torch.manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=1e-5)
    return loaded


def dino(model: ConViT) -> Any:
    args = argparse.Namespace(arch="vit_small", patch_size=8, output_dir=Path("runs"))
    other = {key: value * 2 for key, value in official(model).items()}
    return {
        "student": under("module.backbone.", other), "teacher": under("backbone.", official(model)),
        "args": args, "dino_loss": {"center": torch.zeros(1, 4)},
    }  # fmt: skip


def moco(model: ConViT) -> Any:
    other = {key: value * 2 for key, value in official(model).items()}
    state = under("module.base_encoder.", other)
    state |= under("module.momentum_encoder.", official(model))
    return {"arch": "vit_small", "state_dict": state | {"module.predictor.0.weight": torch.ones(2)}}


def mae(model: ConViT) -> Any:
    decoder = {"decoder_embed.weight": torch.ones(2), "mask_token": torch.zeros(1, 1, 4)}
    args = argparse.Namespace(model="mae_vit_base_patch16", input_size=32)
    return {
        "model": official(model) | decoder | {"decoder_blocks.0.x": torch.ones(2)},
        "args": args,
    }


def dinov2(model: ConViT) -> Any:
    """Chunked blocks and a LayerScale, which is divided out of the linear layers here."""
    state = official(model)
    for block in range(model.config.depth):
        for scale, layer in ((1, "attn.proj"), (2, "mlp.fc2")):
            gamma = torch.linspace(0.5, 2.0, model.embed_dim)
            state[f"blocks.{block}.ls{scale}.gamma"] = gamma
            weight, bias = f"blocks.{block}.{layer}.weight", f"blocks.{block}.{layer}.bias"
            state[weight] = state[weight] / gamma[:, None]
            state[bias] = state[bias] / gamma
    state["mask_token"] = torch.zeros(1, model.embed_dim)
    chunked = {k.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): v
               for k, v in state.items()}  # fmt: skip
    return {"teacher": under("backbone.", chunked) | {"dino_head.mlp.0.weight": torch.ones(2)}}


def lightning(model: ConViT) -> Any:
    settings = OmegaConf.create({"model": {"num_heads": model.config.num_heads, "x": [1, None]}})
    other = {key: value * 2 for key, value in official(model).items()}
    return {
        "state_dict": under("backbone.", other) | under("momentum_backbone.", official(model)),
        "hyper_parameters": {"cfg": settings, "root": Path("/data")},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    }


LAYOUTS: dict[str, tuple[Callable[[ConViT], Any], int, int, str]] = {
    "dino": (dino, 384, 6, "as vit_small has them"),
    "moco_v3": (moco, 384, 12, "MoCo v3's vit_small"),
    "mae": (mae, 768, 12, "mae_vit_base_patch16"),
    "dinov2": (dinov2, 384, 6, ""),
    "lightning": (lightning, 64, 2, "hyper_parameters in the file"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_training_tools(name: str, tmp_path: Path) -> None:
    make, width, heads, said = LAYOUTS[name]
    model = vit(width, heads)
    torch.save(make(model), tmp_path / "checkpoint.pth")
    loaded = check(tmp_path / "checkpoint.pth", model)
    assert loaded.config.num_heads == heads
    provenance: dict[str, Any] = loaded.provenance  # type: ignore[assignment]
    assert said in "; ".join(provenance["notes"])


def test_solo_learn_says_it_in_a_file_beside(tmp_path: Path) -> None:
    model = vit(192, 12)
    torch.save({"state_dict": under("momentum_backbone.", official(model))}, tmp_path / "a.ckpt")
    said = {"method": "mocov3", "backbone": {"name": "vit_tiny"}}
    (tmp_path / "args.json").write_text(json.dumps(said))
    assert check(tmp_path / "a.ckpt", model).config.num_heads == 12
    (tmp_path / "args.json").write_text("{")
    with pytest.raises(UserError, match=r"args\.json as JSON"):
        load_trunk(tmp_path / "a.ckpt")


@pytest.mark.parametrize("scaled", [False, True])
def test_a_folder_of_transformers(scaled: bool, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = vit(48, 3)
    set_layer_norm_eps(model, 1e-3)
    set_activation(model, "quick_gelu")
    said = {"num_attention_heads": 3, "layer_norm_eps": 1e-3, "hidden_act": "quick_gelu"}
    (tmp_path / "config.json").write_text(json.dumps(said))
    images = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    state = under("vit.", {k: v.contiguous() for k, v in transformers(official(model)).items()})
    if scaled:
        state = transformers(official(model), dinov2=True)
    save_file({k: v.contiguous().clone() for k, v in state.items()}, tmp_path / "model.safetensors")
    loaded = check(tmp_path, model)
    assert (layer_norm_eps(loaded), activation(loaded)) == (1e-3, "quick_gelu")
    provenance: dict[str, Any] = loaded.provenance  # type: ignore[assignment]
    assert provenance["entry"]["data"] == {
        "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear",
    }  # fmt: skip
    save_trunk(loaded, tmp_path / "ours" / "t.safetensors")
    again = check(tmp_path / "ours" / "t.safetensors", model)
    assert again.provenance["entry"]["data"]["mean"] == [0.5] * 3  # type: ignore[index]
    said["hidden_act"] = "mish"
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="mish, which is not known here; give --activation"):
        load_trunk(tmp_path)


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


def test_what_a_convit_cannot_be_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for key, words in (
        ("rope_embed.periods", "rotary position embeddings"),
        ("register_tokens", "take the same network without registers"),
        ("blocks.0.mlp.w12.weight", "SwiGLU"),
        ("dist_token", "distillation token"),
    ):
        torch.save(official(vit()) | {key: torch.ones(2)}, path)
        with pytest.raises(UserError, match=words):
            load_trunk(path, num_heads=4)


def test_a_key_chooses_any_trunk(tmp_path: Path) -> None:
    one, other = vit(seed=1), vit(seed=2)
    state = under("first.net.", official(one)) | under("second.net.", official(other))
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"several trunks.*--weights KEY"):
        load_trunk(tmp_path / "w.pth", num_heads=4)
    check(tmp_path / "w.pth", other, weights="second", num_heads=4, images=HALF)
    check(tmp_path / "w.pth", one, weights="first.net", num_heads=4, images=HALF)
    with pytest.raises(UserError, match="several trunks under 'net'"):
        load_trunk(tmp_path / "w.pth", weights="net", num_heads=4)
    with pytest.raises(UserError, match="holds no third weights"):
        load_trunk(tmp_path / "w.pth", weights="third", num_heads=4)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.torch"])
@pytest.mark.parametrize("size", [(32, 128), (16, 40), (8, 32)])
def test_oblong_grids_come_back(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    for variant in ("convit_nano", "deit_nano"):
        model = create_model(variant, num_classes=0, img_size=size, patch_size=8).eval()
        torch.nn.init.normal_(model.pos_embed)
        save_trunk(model, tmp_path / name)
        assert check(tmp_path / name, model).config.image_shape == size


def test_oblong_grids_of_others_are_said_or_given(tmp_path: Path) -> None:
    model = vit(size=(32, 128))  # 64 patches, as many as 8 x 8
    torch.save(official(model), tmp_path / "w.pth")
    square = load_trunk(tmp_path / "w.pth", num_heads=4, images=HALF)
    assert square.config.image_shape == (64, 64)
    assert "--img-size HEIGHT WIDTH" in str(square.provenance["guesses"])  # type: ignore[index]
    check(tmp_path / "w.pth", model, num_heads=4, img_size=(32, 128), images=HALF)
    model = vit(size=(16, 40))  # 10 patches; without the class token's, 9 would be a square
    torch.save(model.state_dict(), tmp_path / "w.pth")
    check(tmp_path / "w.pth", model, num_heads=4, img_size=(16, 40), images=HALF)


def test_timm_entry_points_take_their_own_grid_as_it_is() -> None:
    from convit_ssl.export.timm_models import TimmConViT, checkpoint_filter_fn

    model = create_model("convit_nano", num_classes=0, img_size=(32, 128), patch_size=8)
    torch.nn.init.normal_(model.pos_embed)
    other = TimmConViT(model.config)
    found = checkpoint_filter_fn(dict(model.state_dict()), other)
    assert torch.equal(found["pos_embed"], model.pos_embed)


def test_oblong_trunks_are_exported_and_come_back(tmp_path: Path) -> None:
    from convit_ssl.export.timm_target import open_timm_folder
    from convit_ssl.export.trunk import export_trunk

    config = ConViTConfig(
        img_size=(16, 64), patch_size=8, num_classes=0, embed_dim=36, depth=2, num_heads=4,
        num_gpsa_layers=1,
    )  # fmt: skip
    model = ConViT(config).eval()
    torch.nn.init.normal_(model.pos_embed)
    out = tmp_path / "out"
    export_trunk(model, ["safetensors", "official", "timm", "hf", "vissl"], out, name="t")
    for place in ("t.safetensors", "t.pth", "t_vissl.torch", "timm", "hf"):
        assert check(out / place, model).config.image_shape == (16, 64), place
    images = torch.randn(2, 3, 16, 64)
    torch.testing.assert_close(open_timm_folder(out / "timm")(images), model(images))
    assert "import convit_ssl.export.timm_models" in (out / "README.md").read_text()


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
