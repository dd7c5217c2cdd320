"""The Python interface: light to import, one meaning with the command line, errors with codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convit_ssl
from convit_ssl.api import common, training
from convit_ssl.errors import UserError
from convit_ssl.models import create_model

NAMES = (
    "train", "embed", "knn", "linear", "segment", "retrieve", "scores", "check", "load_trunk",
    "report", "export",
)  # fmt: skip
SMALL = {"img_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of two classes that brightness tells apart, in two groups."""
    folder = tmp_path_factory.mktemp("api") / "images"
    random = np.random.default_rng(0)
    for number in range(12):
        path = folder / "ab"[number % 2] / f"p{number // 6}_{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (18, 20, 3)) + 180 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch", "numpy", "hydra", "PIL", "timm", "convit_ssl.api"
    code = f"import sys, convit_ssl; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_there_and_documented(name: str) -> None:
    assert callable(getattr(convit_ssl, name))
    assert name in dir(convit_ssl)
    function = getattr(convit_ssl.api, name)
    assert "Args:" in function.__doc__ and "Raises:" in function.__doc__


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        convit_ssl.trian  # noqa: B018


def test_stub_and_lazy_names_agree() -> None:
    stub = Path(convit_ssl.__file__).with_name("__init__.pyi").read_text()
    names = {line.split()[-1] for line in stub.splitlines() if line.startswith("from")}
    assert names == {*convit_ssl._LAZY, "export"}


def test_options_become_a_command_line(images: Path) -> None:
    options = {
        "optim__epochs": 20,
        "crops": {"global_scale": (0.2, 1), "local_count": 0},
        "augmentation.hue": 0,
        "data": {"subset": None},
        "run": {"compile": True},
    }
    words = [f"{key}={training._text(value)}" for key, value in training._flat(options)]
    assert words == [
        "optim.epochs=20", "crops.global_scale=[0.2,1]", "crops.local_count=0",
        "augmentation.hue=0", "data.subset=null", "run.compile=true",
    ]  # fmt: skip
    found = training._words(images, "simclr", None, "cpu", None, None)
    assert found == [
        "config=convit_simclr", "data=folder", f"data_dir={images}", "run=cpu", "trunk=convit_nano"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("digits", {"data": "digits"}),
        ("https://example.org/a/{0..3}.tar", {"data": "shards"}),
    ],
)
def test_data_by_name(data: str, expected: dict[str, str]) -> None:
    assert common.data_arguments(data).items() >= expected.items()


def test_features_come_with_what_is_known_of_the_images(images: Path, tmp_path: Path) -> None:
    found = convit_ssl.embed(
        "random:convit_nano", images, group_by="name:(p[0-9])", out=tmp_path / "f", **SMALL
    )
    assert repr(found).startswith(f"Features({len(found):,} images, ") and len(repr(found)) < 120
    assert len(found) == 12
    assert found.array.shape == (12, 384)
    assert np.asarray(found).dtype == np.float32
    assert found.labels == ["a"] * 6 + ["b"] * 6
    assert set(found.groups) == {"p0", "p1"}
    assert found.sizes[0] == (18, 20)
    assert found.to_csv(tmp_path / "x.csv").read_text().startswith("path,label,group,height")


def test_a_list_of_files_and_patch_maps(images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))[:3]
    found = convit_ssl.embed(
        "random:convit_nano", files, tokens="patch", out=tmp_path / "f", **SMALL
    )
    assert found.array.shape == (3, 4, 4, 128)
    assert found.names == [str(file) for file in files]
    assert found.labels == [None] * 3
    with pytest.raises(UserError, match="patch maps") as caught:
        found.to_pandas()
    assert caught.value.code == "output"


def test_features_say_which_network_made_them(images: Path, tmp_path: Path) -> None:
    def made(folder: str, files: list[Path], seed: int) -> str:
        return convit_ssl.embed(
            "random:convit_nano", files, seed=seed, out=tmp_path / folder, **SMALL
        ).fingerprint

    files = sorted(images.rglob("*.png"))
    assert made("a", files[:2], 0) == made("b", files[2:4], 0) != made("c", files[:2], 1)


def test_a_probe_gives_figures_references_and_a_verdict(images: Path, tmp_path: Path) -> None:
    found = convit_ssl.knn(
        "random:convit_nano", images, folds=3, references=True, k=[3], cache=tmp_path, **SMALL
    )
    assert 0 <= found.interval[0] <= found.accuracy <= found.interval[1] <= 1
    assert found.references == {"raw pixels": 1.0}
    assert found.verdict is not None and found.verdict.text in str(found)
    assert set(found.per_class) == {"a", "b"}


def test_what_needs_no_probe_is_a_call_too(images: Path, tmp_path: Path) -> None:
    cache = {"cache": tmp_path / "cache", **SMALL}
    masks = tmp_path / "masks"
    for file in images.rglob("*.png"):
        mask = masks / file.relative_to(images)
        mask.parent.mkdir(parents=True, exist_ok=True)
        bright = np.asarray(Image.open(file)).mean(axis=2) > 120
        Image.fromarray(bright.astype(np.uint8)).save(mask)
    dense = convit_ssl.segment(
        "random:convit_nano", images, masks, holdout=0.4, references=True, probe=["knn"], **cache
    )
    assert list(dense.results) == ["raw pixels", "random:convit_nano"]
    assert dense.classes == (0, 1) and sum(dense.images) == 12
    assert dense.results["raw pixels"]["knn"]["miou"] > 0.9
    assert dense.verdicts["knn"].differences.keys() == {"raw pixels"}
    assert "raw pixels, knn: mIoU" in str(dense) and "frozen network" in dense.not_measured
    found = convit_ssl.retrieve(
        "random:convit_nano", images, references=True, group_by="name:(p.)_", **cache
    )
    assert list(found.results) == ["raw pixels", "random:convit_nano"]
    assert found.results["raw pixels"]["queries"] == 12 and found.verdict is not None
    assert str(found).startswith("raw pixels: recall@1 ") and found.verdict.text in str(found)
    assert found.left_out is None
    broken = images / "a" / "p0_00a.png"
    broken.write_bytes((images / "a" / "p0_00.png").read_bytes()[:200])
    try:
        less = convit_ssl.retrieve(
            "random:convit_nano", images, references=True, group_by="name:(p.)_", **cache
        )
    finally:
        broken.unlink()
    assert less.results == found.results and less.verdict == found.verdict
    assert less.left_out is not None and less.left_out.startswith("1 unreadable image of 13")
    free = convit_ssl.scores("random:convit_nano", images, images=12, **cache)
    assert free.rows[0]["name"] == "raw pixels" and free.scores["gate_motion"] == 0.0
    assert str(free)
    clean = convit_ssl.check(images, out=tmp_path / "clean", holdout=0.5, group_by="name:(p.)_")
    assert clean.page.is_file() and clean.table.is_file() and str(clean)
    assert clean.is_clean is not bool(set(clean.counts) - {"duplicate"})
    twice = images / "b" / "p1_99.png"
    twice.write_bytes((images / "a" / "p0_00.png").read_bytes())
    try:
        spoilt = convit_ssl.check(images, out=tmp_path / "spoilt")
    finally:
        twice.unlink()
    assert not spoilt.is_clean and spoilt.counts["labels differ"] >= 1
    row = next(one for one in spoilt.findings if one["kind"] == "labels differ")
    assert {row["file"], row["other_file"]} == {"a/p0_00.png", "b/p1_99.png"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        convit_ssl.scores("random:convit_nano", images, colour=1)
    with pytest.raises(UserError, match="holdout") as raised:
        convit_ssl.segment("random:convit_nano", images, masks, **cache)
    assert raised.value.code == "data"


def test_a_trunk_is_loaded_and_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("convit_nano", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = convit_ssl.load_trunk(tmp_path / "weights.pth", img_size=32)
    assert not loaded.training
    written = convit_ssl.export(
        tmp_path / "weights.pth", "safetensors", tmp_path / "out", name="mine", img_size=32
    )
    assert [item.target for item in written] == ["safetensors"]
    assert (tmp_path / "out" / "mine.safetensors").is_file()


def test_errors_have_codes(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no such folder") as caught:
        convit_ssl.train("nowhere", out)
    assert caught.value.code == "data"
    with pytest.raises(UserError, match=r"optim.epochs") as caught:
        convit_ssl.train(images, out, run="cpu", in_process=True, optim__epoch=3)
    assert caught.value.code == "options"
    with pytest.raises(UserError, match="no such checkpoint") as caught:
        convit_ssl.load_trunk(tmp_path / "nothing.pth")
    assert caught.value.code == "weights"
    with pytest.raises(UserError, match="nothing to test on") as caught:
        convit_ssl.knn("random:convit_nano", images, **SMALL)
    assert caught.value.code == "data"
    with pytest.raises(TypeError, match="unexpected keyword argument 'folders'"):
        convit_ssl.knn("random:convit_nano", images, folders=3)
    assert not out.exists()


def test_an_error_of_the_training_process_arrives_here(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optim.epochs=0: give 1 or more") as caught:
        convit_ssl.train(images, tmp_path / "run", run="cpu", optim={"epochs": 0}, quiet=True)
    assert (caught.value.code, caught.value.exit_code) == ("options", 2)
