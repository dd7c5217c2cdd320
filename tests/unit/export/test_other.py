"""Networks that are not ConViTs: their checkpoints are read strictly, and written for others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from convit_ssl import adapters  # noqa: F401
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.tokens import PatchFeatures, TokenFeatures
from convit_ssl.export import load_network, load_trunk
from convit_ssl.export.other import start_from, start_published
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models.trunks import OtherTrunk, TrunkConfig, build_trunk, measured

CONFIG = measured(TrunkConfig("timm:test_vit", 32), (32,))


def network(seed: int) -> OtherTrunk:
    torch.manual_seed(seed)
    made = build_trunk(CONFIG)
    assert isinstance(made, OtherTrunk)
    return made.eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As training writes it: a student and a teacher."""
    student = {f"network.{k}": v for k, v in network(1).network.state_dict().items()}
    teacher = {f"teacher.trunk.network.{k}": v for k, v in network(2).network.state_dict().items()}
    entry = {
        "model": dataclasses.asdict(CONFIG),
        "variant": CONFIG.trunk,
        "method": "dino",
        "epoch": 3,
        "config": {"plugins": []},
        "data": {"mean": [0.5] * 3, "std": [0.5] * 3, "folder": "/secret"},
    }
    state = {"base_model": {"model": {"trunk": student, "heads": {}}}}
    content = {"classy_state_dict": state, "loss": teacher, "convit_ssl": entry}
    torch.save(content, tmp_path / "last.torch")
    return tmp_path / "last.torch"


def same(one: OtherTrunk, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in one.network.state_dict().items())


def test_teacher_and_student_are_told_apart(checkpoint: Path) -> None:
    loaded: Any = load_network(checkpoint)
    assert same(loaded, network(2).network) and not loaded.training
    assert loaded.provenance["weights"] == "teacher"
    student: Any = load_network(checkpoint, weights="student", img_size=48)
    assert same(student, network(1).network)
    assert student(torch.zeros(1, 3, 48, 48)).shape == (1, 64)
    with pytest.raises(UserError, match=r"cannot take images of 40 x 40 px: .*divisible"):
        load_network(checkpoint, img_size=40)
    with pytest.raises(UserError, match=r"holds no ema weights; it has: student .*teacher"):
        load_network(checkpoint, weights="ema")


def test_what_needs_a_convit_says_so(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"holds timm:test_vit, and this needs a ConViT"):
        load_trunk(checkpoint)
    loaded = load_network(checkpoint)
    with pytest.raises(UserError, match="patch features need a ConViT"):
        PatchFeatures(loaded, (32, 32))
    extractor = TokenFeatures(loaded)
    images = torch.randn(2, 3, 32, 32)
    assert extractor.layout == {"pooled": (0, 64)}
    assert torch.equal(extractor(images), loaded(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trunk": "timm:test_vit2"}, "holds no timm:test_vit2: there is no reg_token"),
        ({"in_chans": 1}, "patch_embed.proj.weight has shape"),
        ({"trunk": "mine"}, "unknown trunk 'mine'"),
        ({"img_size": "large"}, "has an invalid description"),
        ({"code": "import os"}, "has an invalid description"),
    ],
)
def test_descriptions_that_are_wrong(
    checkpoint: Path, change: dict[str, Any], message: str
) -> None:
    content = torch.load(checkpoint)
    content["convit_ssl"]["model"] |= change
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match=message):
        load_network(checkpoint)


def test_exports_are_read_by_their_libraries(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_network(checkpoint)
    out = tmp_path / "out"
    written = export_trunk(loaded, ["safetensors", "timm"], out, name="mine")
    assert [item.differences[0].value for item in written] == [0.0, 0.0]
    assert same(load_network(out / "mine.safetensors"), network(2).network)  # type: ignore[arg-type]
    theirs = timm.create_model(f"local-dir:{out / 'timm'}", pretrained=True).eval()
    assert same(loaded, theirs)  # type: ignore[arg-type]
    assert "/secret" not in (out / "config.json").read_text()
    cfg = json.loads((out / "timm" / "config.json").read_text())
    assert cfg["architecture"] == "test_vit" and cfg["pretrained_cfg"]["mean"] == [0.5] * 3
    with pytest.raises(UserError, match="--to hf cannot hold timm:test_vit; choose from safetens"):
        export_trunk(loaded, ["hf"], tmp_path / "hf")


def test_a_file_of_timms_starts_a_network_of_another_size_and_of_other_channels(
    tmp_path: Path,
) -> None:
    source = timm.create_model("test_vit", img_size=64, num_classes=10)
    torch.save(source.state_dict(), tmp_path / "timm.pth")
    other = OtherTrunk(TrunkConfig("timm:test_vit", 32, in_chans=1))
    start_from(other, str(tmp_path / "timm.pth"))
    theirs, ours = source.state_dict(), other.network.state_dict()
    assert torch.equal(ours["blocks.3.mlp.fc1.weight"], theirs["blocks.3.mlp.fc1.weight"])
    projection = theirs["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(ours["patch_embed.proj.weight"], projection)
    with pytest.raises(UserError, match="holds no timm:test_resnet"):
        start_from(OtherTrunk(TrunkConfig("timm:test_resnet", 32)), str(tmp_path / "timm.pth"))


def test_published_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    trunk = network(0)
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError, match=r"OSError: no network.*trunk.pretrained=PATH"):
        start_published(trunk)


def test_weights_of_a_diverged_run_are_one_trunk(checkpoint: Path) -> None:
    content = torch.load(checkpoint)
    trunk = content["classy_state_dict"]["base_model"]["model"]["trunk"]
    trunk["network.pos_embed"] = trunk["network.pos_embed"] * float("nan")
    torch.save(content, checkpoint)
    assert isinstance(load_network(checkpoint, weights="student"), OtherTrunk)
