"""Features are extracted once, are the model's own tokens, and never outlive what they are of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convit_ssl.data import ImageFiles, evaluation_transform, open_dataset
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features import fingerprint
from convit_ssl.evaluation.features.extraction import FeatureSet, extract_features, load_features
from convit_ssl.evaluation.features.tokens import (
    PixelFeatures,
    PixelTransform,
    TokenFeatures,
    available_columns,
    default_columns,
    pixel_transform,
)
from convit_ssl.evaluation.processes import run_in_processes
from convit_ssl.models import ConViT, ConViTConfig


def batch_of(images: ImageFiles) -> torch.Tensor:
    return torch.stack([images[i][0] for i in range(len(images))])


def test_columns_are_the_normalised_tokens(
    model: ConViT, images: ImageFiles, tmp_path: Path
) -> None:
    names = ["patch_mean_last3", "class_last2", "class_last1", "patch_mean_last1"]
    found = extract_features(TokenFeatures(model, names), images, tmp_path / "f", device="cpu")
    with torch.no_grad():
        layers = model.get_intermediate_layers(batch_of(images), n=2, return_class_token=True)
        gpsa = model.get_intermediate_layers(batch_of(images), n=3)[0]
        last = model.forward_features(batch_of(images))
    expected = {
        "patch_mean_last3": gpsa.mean(dim=1),
        "class_last2": layers[0][1],
        "class_last1": last[:, 0],
        "patch_mean_last1": layers[1][0].mean(dim=1),
    }
    for name in names:
        np.testing.assert_allclose(found.column(name), expected[name], atol=1e-5)
    assert found.targets.tolist() == list(images.targets)
    assert list(found.paths) == images.paths
    assert list(found.classes) == ["a", "b", "c"]


def test_class_tokens_exist_only_after_the_gpsa_layers(model: ConViT) -> None:
    assert default_columns(model) == ("class_last1", "class_last2", "patch_mean_last1")
    assert "class_last3" not in available_columns(model)
    with pytest.raises(UserError, match="no feature 'class_last3'; it has class_last1"):
        TokenFeatures(model, ["class_last3"])


def test_patch_mean_leaves_the_class_token_out_of_a_plain_vit() -> None:
    vit = ConViT(
        ConViTConfig(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=4, num_gpsa_layers=0)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        got = TokenFeatures(vit, ["patch_mean_last1", "patch_mean_last2"])(x)
        first, last = vit.get_intermediate_layers(x, n=2, return_class_token=True)
    expected = torch.cat([last[0].mean(dim=1), first[0].mean(dim=1)], dim=1)
    torch.testing.assert_close(got, expected)


def test_second_extraction_reuses_and_a_change_does_not(
    model: ConViT, folder: Path, tmp_path: Path
) -> None:
    def extract() -> FeatureSet:
        images = open_dataset("folder", folder, "train", transform)
        return extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")

    transform = evaluation_transform(16)
    first = extract()
    assert "reused" not in first.manifest
    assert extract().manifest["reused"] is True

    transform = evaluation_transform(16, interpolation="bilinear", crop_ratio=0.7)
    assert "reused" not in extract().manifest
    with torch.no_grad():
        model.blocks[0].attn.gating_param[1] += 1e-4
    assert "reused" not in extract().manifest
    changed = folder / "train" / "b" / "03.png"
    Image.new("RGB", (16, 16)).save(changed)
    assert "reused" not in extract().manifest
    changed.unlink()
    assert len(extract()) == len(first) - 1


@pytest.mark.parametrize("unreadable", ["a/00.png", "b/03.png", None])
def test_reused_features_have_the_paths_of_a_folder_that_was_moved(
    model: ConViT, folder: Path, tmp_path: Path, unreadable: str | None
) -> None:
    def extract(place: Path) -> FeatureSet:
        images = open_dataset(
            "folder", place, "train", evaluation_transform(16), replace=False, max_corrupt=1
        )
        return extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")

    if unreadable:
        (folder / "train" / unreadable).write_bytes(b"no image")
    first = extract(folder)
    moved = folder.rename(tmp_path / "another place")
    again = extract(moved)
    assert again.manifest["reused"] is True
    assert len(again.unreadable) == bool(unreadable)
    for before, now in ((first.paths, again.paths), (first.unreadable, again.unreadable)):
        assert [path.replace(str(folder), str(moved)) for path in before] == list(now)


def test_touched_files_are_read_again(model: ConViT, folder: Path, tmp_path: Path) -> None:
    def extract() -> FeatureSet:
        images = open_dataset("folder", folder, "train", evaluation_transform(16))
        return extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")

    first = extract().manifest
    os.utime(folder / "train" / "a" / "00.png", ns=(1, 1))
    second = extract().manifest
    assert "reused" not in second
    assert first["fingerprint"]["data"] == second["fingerprint"]["data"]


def test_other_content_under_the_same_name_size_and_time(
    model: ConViT, folder: Path, tmp_path: Path
) -> None:
    def extract(**more: bool) -> FeatureSet:
        images = open_dataset("folder", folder, "train", evaluation_transform(16))
        return extract_features(TokenFeatures(model), images, tmp_path / "f", **more)

    first = extract()
    assert extract().manifest["reused"] is True
    path = folder / "train" / "a" / "00.png"
    state, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1  # of a part that decoders pass over, so that the file stays an image
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    second = extract()
    assert "reused" not in second.manifest
    assert first.manifest["fingerprint"]["data"] == second.manifest["fingerprint"]["data"]
    assert extract().manifest["reused"] is True
    assert "reused" not in extract(recompute=True).manifest


def test_content_counts_where_a_file_system_tells_no_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "file_state", lambda path: (1, 2, 3, 4))
    images = open_dataset("folder", folder, "train", evaluation_transform(16))
    first = fingerprint.data_fingerprints(images)
    assert first == fingerprint.data_fingerprints(images)
    path = Path(images.paths[3])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert first != fingerprint.data_fingerprints(images)


@pytest.mark.parametrize("name", ["features.npy", "targets.npy", "images.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["zero", "bit", "cut", "empty", "swap"])
def test_damaged_features_are_extracted_again(
    name: str,
    harm: str,
    model: ConViT,
    images: ImageFiles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = extract_features(TokenFeatures(model), images, tmp_path / "f")
    expected = np.array(first.features)
    path = tmp_path / "f" / name
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    if harm == "zero":
        data[half:] = bytes(len(data) - half)
    elif harm == "bit":
        data[-9] ^= 1
    elif harm == "cut":
        data = data[:half]
    elif harm == "empty":
        data = bytearray()
    else:
        data = data[:half] + data[half:][::-1]
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_features(tmp_path / "f")
    second = extract_features(TokenFeatures(model), images, tmp_path / "f")
    assert "reused" not in second.manifest
    np.testing.assert_array_equal(second.features, expected)
    assert "extracting the features again" in capsys.readouterr().err


def test_features_from_before_checksums(
    model: ConViT, images: ImageFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_features(TokenFeatures(model), images, tmp_path / "f")
    path = tmp_path / "f" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    assert len(load_features(tmp_path / "f")) == len(images)
    assert "have no checksums" in capsys.readouterr().err


def test_what_a_killed_extraction_left_is_deleted(
    model: ConViT, images: ImageFiles, tmp_path: Path
) -> None:
    dead, alive = tmp_path / ".f.partial-dead", tmp_path / ".f.partial-alive"
    for place in (dead, alive):
        place.mkdir()
        (place / "features.npy").write_bytes(b"x" * 99)
        (place / ".alive").write_text("1")
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_WAIT, str(alive / ".alive")], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        extract_features(TokenFeatures(model), images, tmp_path / "f")
        assert not dead.exists() and alive.exists()
    finally:
        holder.kill()
        holder.communicate()
    extract_features(TokenFeatures(model), images, tmp_path / "f", recompute=True)
    assert list(tmp_path.glob(".f.*")) == []


LOCK_AND_WAIT = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.lockf(file.fileno(), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_two_processes_write_the_same_bits(
    model: ConViT, images: ImageFiles, tmp_path: Path
) -> None:
    extract = partial(extract_features, TokenFeatures(model), images, device="cpu", batch_size=4)
    one = extract(tmp_path / "one")
    two = run_in_processes(extract, 2, tmp_path / "two")
    assert two is not None
    assert two.manifest["processes"] == 2
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.targets, two.targets)


def test_workers_change_nothing(model: ConViT, images: ImageFiles, tmp_path: Path) -> None:
    one = extract_features(TokenFeatures(model), images, tmp_path / "one", batch_size=4)
    two = extract_features(TokenFeatures(model), images, tmp_path / "two", batch_size=4, workers=2)
    np.testing.assert_array_equal(one.features, two.features)


def test_a_device_without_memory(
    model: ConViT, images: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: TokenFeatures, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TokenFeatures, "forward", full)
    with pytest.raises(UserError, match=r"out of memory with 3 images at a time; .* --batch-size"):
        extract_features(TokenFeatures(model), images, tmp_path / "out" / "f", batch_size=3)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_leaves_nothing(model: ConViT, images: ImageFiles, tmp_path: Path) -> None:
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        extract_features(TokenFeatures(model), images, tmp_path / "out" / "f", device="cpu")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_with_other_things_is_left_alone(
    model: ConViT, images: ImageFiles, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="files that are not features"):
        extract_features(TokenFeatures(model), images, tmp_path, device="cpu")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


UNREADABLE = {"b/03.png": b"not a picture", "a/00.png": b"", "c/06.png": b"\x89PNG\r\n"}


@pytest.mark.parametrize("layout", ["classes", "flat", "list"])
@pytest.mark.parametrize("processes", [1, 2])
def test_unreadable_images_have_no_rows_and_are_listed(
    model: ConViT, folder: Path, tmp_path: Path, layout: str, processes: int
) -> None:
    data, root = "folder", folder
    if layout == "flat":
        root = tmp_path / "flat"
        root.mkdir()
        for path in sorted((folder / "train").rglob("*.png")):
            path.rename(root / f"{path.parent.name}{path.name}")
    elif layout == "list":
        data, names = "list", sorted((folder / "train").rglob("*.png"))
        lines = [f"train/{name.parent.name}/{name.name}" for name in names]
        (folder / "train.txt").write_text("\n".join(lines))
    bad = []
    for name, content in UNREADABLE.items():
        path = root / name.replace("/", "") if layout == "flat" else folder / "train" / name
        path.write_bytes(content)
        bad.append(str(path))

    def opened() -> ImageFiles:
        transform = evaluation_transform(16)
        return open_dataset(data, root, "train", transform, max_corrupt=1.0, replace=False)

    extract = partial(extract_features, TokenFeatures(model), opened(), device="cpu", batch_size=4)
    found = run_in_processes(extract, processes, tmp_path / "f") if processes > 1 else None
    found = found or extract(tmp_path / "f")
    assert len(found) == 18
    assert sorted(found.unreadable) == sorted(bad)
    assert not set(bad) & set(found.paths)
    listed = json.loads((tmp_path / "f" / "images.json").read_text())["unreadable"]
    assert {entry["path"] for entry in listed} == set(bad) and all(e["reason"] for e in listed)
    for path in bad:
        Path(path).unlink()
    if layout == "list":
        lines = [line for line in lines if str(folder / line) not in bad]
        (folder / "train.txt").write_text("\n".join(lines))
    alone = extract_features(TokenFeatures(model), opened(), tmp_path / "g", device="cpu")
    assert list(alone.paths) == list(found.paths)
    np.testing.assert_allclose(alone.features, found.features, atol=1e-5)
    np.testing.assert_array_equal(alone.targets, found.targets)
    again = load_features(tmp_path / "f")
    assert again.unreadable == found.unreadable
    assert again.left_out("train") == (
        f"3 unreadable images of 21 in train, excluded from every result: listed in "
        f"{tmp_path / 'f' / 'images.json'}"
    )


def test_rows_of_replaced_images_are_left_out_too(
    model: ConViT, folder: Path, tmp_path: Path
) -> None:
    (folder / "train" / "b" / "03.png").write_bytes(b"not a picture")
    images = open_dataset("folder", folder, "train", evaluation_transform(16))
    found = extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")
    assert len(found) == len(images) - 1
    assert [path.rsplit("/", 2)[1:] for path in found.unreadable] == [["b", "03.png"]]


def test_nothing_but_unreadable_images(model: ConViT, folder: Path, tmp_path: Path) -> None:
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"nothing")
    images = open_dataset(
        "folder", folder, "train", evaluation_transform(16), max_corrupt=1.0, replace=False
    )
    with pytest.raises(UserError, match=r"none of 21 images can be read; .*00\.png: not an"):
        extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")


def test_a_random_transform_is_refused(model: ConViT, folder: Path, tmp_path: Path) -> None:
    images = open_dataset("folder", folder, "train", lambda image: torch.rand(3, 16, 16))
    with pytest.raises(UserError, match="this transform is random"):
        extract_features(TokenFeatures(model), images, tmp_path / "f", device="cpu")


def test_progress_ends_at_the_last_image(model: ConViT, images: ImageFiles, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    extract_features(
        TokenFeatures(model), images, tmp_path / "f", batch_size=8,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(8, 21), (16, 21), (21, 21)]


def test_raw_pixels_are_the_pixels(folder: Path, tmp_path: Path) -> None:
    images = open_dataset("folder", folder, "train")
    transform = pixel_transform(images.paths)
    assert (transform.side, transform.grey) == (16, False)
    images = open_dataset("folder", folder, "train", transform)
    found = extract_features(PixelFeatures(transform), images, tmp_path / "f", device="cpu")
    with Image.open(images.paths[5]) as image:
        expected = np.asarray(image, dtype=np.float32).transpose(2, 0, 1).ravel() / 255
    np.testing.assert_allclose(found.column("pixels")[5], expected)


def test_grey_images_are_one_channel(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.new("L", (40, 9), color=10 * i).save(path)
    transform = pixel_transform(paths, grey=open_dataset("folder", tmp_path).is_grey())
    assert (transform.side, transform.grey) == (9, True)
    with Image.open(paths[2]) as image:
        assert PixelTransform(4, True)(image.convert("RGB")).shape == (1, 4, 4)


def test_feature_sets_check_themselves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 features for 2 targets"):
        FeatureSet(torch.zeros(3, 2), np.zeros(2))
    with pytest.raises(UserError, match="none of the 3 images has a label"):
        FeatureSet(torch.zeros(3, 2), np.full(3, -1)).labelled()
    with pytest.raises(UserError, match="no feature 'x' here; choose from features"):
        FeatureSet(torch.zeros(3, 2), np.zeros(3)).column("x")
    with pytest.raises(UserError, match="no features in"):
        load_features(tmp_path)
