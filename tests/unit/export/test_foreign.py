"""Small checkpoints in the layouts of other tools: they load as they were, or are refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.load import (
    activation,
    layer_norm_eps,
    set_activation,
    set_layer_norm_eps,
)
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT
from tests.unit.export.foreign_files import HALF, check, official, transformers, under, vit


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
