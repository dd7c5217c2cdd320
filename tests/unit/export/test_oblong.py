"""Grids that are no squares: kept in our files, said or given in those of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convit_ssl.export import load_trunk
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig, create_model
from tests.unit.export.foreign_files import HALF, check, official, vit


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
