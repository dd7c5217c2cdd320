"""A planted leak is found whole, and nothing else is: neither in drawings nor in digits."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from convit_ssl.cli.main import run_command
from convit_ssl.data.checks.duplicates import find_duplicates
from convit_ssl.data.checks.quality import inspect, inspect_all, odd_ones


def scene(draw: np.random.Generator, side: int = 88) -> Image.Image:
    """A drawing with a soft ground, grain, and a few shapes: no two are alike."""
    low = draw.uniform(40, 215, (4, 4, 3)).astype(np.uint8)
    image = Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(6, 14))):
        x, y, w, h = (int(v) for v in draw.uniform([0, 0, 6, 6], [side, side, 40, 40]))
        colour = tuple(int(v) for v in draw.integers(0, 256, 3))
        shape = (pen.ellipse, pen.rectangle)[int(draw.integers(2))]
        shape((x - w // 2, y - h // 2, x + w // 2, y + h // 2), fill=colour)
    grain = draw.normal(0, 5, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def plant(root: Path, images: int, seed: int = 0) -> tuple[set[tuple[str, str]], set[str]]:
    """Train and val of drawings, with copies across and bad files; returns what was planted."""
    draw = np.random.default_rng(seed)
    drawn: list[tuple[str, Image.Image]] = []
    for number in range(images):
        part, label = ("train", "val")[number % 5 == 4], "ab"[number % 2]
        path = root / part / label / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = scene(draw)
        image.save(path)
        drawn.append((f"{part}/{label}/{number:04d}.png", image))
    pairs = set()
    sources = [name for name, _ in drawn if name.startswith("train")]
    for number in range(20):
        name = sources[number * 7]
        image = dict(drawn)[name]
        other = number < 5
        label = "ba"[name.split("/")[1] == "b"] if other else name.split("/")[1]
        copy = root / "val" / label / f"copy{number:02d}.{('png', 'jpg')[number % 4 == 1]}"
        if number % 4 == 1:
            image.save(copy, quality=70)
        elif number % 4 == 2:
            image.resize((60, 60), Image.Resampling.BICUBIC).save(copy)
        elif number % 4 == 3:
            image.crop((3, 1, 87, 85)).save(copy)
        else:
            copy.write_bytes((root / name).read_bytes())
        pairs.add((name, f"val/{label}/{copy.name}"))
    for number in range(3):
        Image.new("RGB", (88, 88)).save(root / "train" / "a" / f"black{number}.png", optimize=True)
        with open(root / "train" / "a" / f"black{number}.png", "ab") as file:
            file.write(bytes(number))  # no two files are equal
    for number in range(2):
        whole = root / "train" / "b" / f"cut{number}.jpg"
        scene(draw).save(whole, quality=95)
        whole.write_bytes(whole.read_bytes()[:1500])
    bad = {f"train/a/black{n}.png" for n in range(3)} | {f"train/b/cut{n}.jpg" for n in range(2)}
    return pairs, bad


@pytest.mark.parametrize("images", [170, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_planted_leak_is_found_whole_and_nothing_else(
    tmp_path: Path, images: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, bad = plant(tmp_path / "images", images)
    code = run_command("check", [str(tmp_path / "images"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert code == 1
    with open(tmp_path / "out" / "check.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["file"], row["other_file"]) for row in rows if row["other_file"]}
    assert found == pairs
    assert sum(row["kind"] == "labels differ" for row in rows) == 5
    assert sum(row["kind"] == "leak" for row in rows) == 15
    assert {row["file"] for row in rows if row["kind"] in ("black", "truncated")} == bad
    # Copies of another size are of another size; no drawing is.
    odd = {row["file"] for row in rows if row["kind"] == "odd"}
    assert odd <= {copy for _, copy in pairs}
    assert "15 pairs across parts, 5 pairs with two labels, 2 truncated, 3 black" in said
    page = (tmp_path / "out" / "check.html").read_text()
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")
    assert page.count("<figure>") == len(rows)


def test_digits_resemble_one_another_and_are_no_copies(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    paths = []
    for number, digit in enumerate(load_digits().images):
        paths.append(str(tmp_path / f"{number:04d}.png"))
        Image.fromarray((digit * 15.9).astype(np.uint8)).save(paths[-1])
    facts = inspect_all(paths)
    assert not any(one.problem for one in facts) and not odd_ones(facts)
    assert not find_duplicates(facts, lambda position: Image.open(paths[position]))


def test_a_clean_collection_has_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    for number in range(30):
        scene(draw).save(tmp_path / f"p{number // 10}_{number:02d}.png")
    words = [str(tmp_path), "--holdout", "0.3", "--group-by", "name:^(p.)_", "--out"]
    assert run_command("check", [*words, str(tmp_path / "out")]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert "<h2>Groups</h2>" in (tmp_path / "out" / "check.html").read_text()


def test_parts_that_are_there_are_not_divided_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        scene(np.random.default_rng(1)).save(tmp_path / part / "a" / "0.png")
    assert run_command("check", [str(tmp_path), "--holdout", "0.2"]) == 2
    assert "is already split (train, val)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "unreadable"), (b"no image at all", "unreadable")],
)
def test_what_is_no_image_is_said(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert inspect(str(tmp_path / "x.png")).problem == problem
    assert inspect(str(tmp_path / "gone.png")).reason == "no such file"


def test_depth_and_size_that_differ_from_the_rest(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number:02d}.png") for number in range(30)]
    for path in paths:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)).save(path)
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(paths[3])
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 99).save(paths[5])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 24), np.uint8)).save(paths[7])
    facts = inspect_all(paths)
    odd = odd_ones(facts)
    assert set(odd) == {5, 7}
    assert odd[5] == "grey of more than 8 bits, where the rest is 8-bit grey"
    assert odd[7] == "9 x 24 pixels, where the rest is 20 x 24"
    assert [i for i, one in enumerate(facts) if one.problem] == [3]


def test_images_of_many_channels_are_compared_and_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tifffile

    draw = np.random.default_rng(0)
    grounds = np.kron(draw.integers(0, 4000, (30, 6, 6, 5)), np.ones((1, 8, 8, 1)))
    images = (grounds + draw.integers(0, 200, grounds.shape)).astype(np.uint16)
    for number, image in enumerate([*images, np.zeros_like(images[0]), images[3]]):
        part = ("train", "val")[number % 2]
        path = tmp_path / "images" / part / "a" / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        compression = "zlib" if number == 31 else None  # other bytes of the same picture
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig",
                         compression=compression)  # fmt: skip
    network = tmp_path / "network"
    assert run_command("check", [str(tmp_path / "images"), "--out", str(network)]) == 1
    said = capsys.readouterr().out
    assert "1 black" in said and "unreadable" not in said
    with open(network / "check.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = {(Path(r["file"]).name, Path(r["other_file"]).name) for r in rows if r["other_file"]}
    assert pairs == {("03.tif", "31.tif")}
    assert (network / "check.html").read_text().count("<img") >= 2


def test_a_network_compares_images_as_it_was_trained_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tifffile

    from convit_ssl.cli.check_command import _alike_in_features
    from convit_ssl.cli.options import weights as weights_options
    from convit_ssl.data.checks.collection import Collection
    from convit_ssl.models import create_model

    small = {"embed_dim": 32, "depth": 2, "num_gpsa_layers": 1, "img_size": 16, "patch_size": 8}
    model = create_model("convit_nano", num_classes=0, in_chans=5, **small).eval()
    data = {"depth": "native", "channels": [0, 1, 2, 3, 4], "file_channels": 5}
    data |= {"mean": [0.5] * 5, "std": [0.25] * 5, "channel_ranges": [[0, 1]] * 5}
    model.provenance = {"entry": {"data": data}}  # type: ignore[assignment]
    monkeypatch.setattr(weights_options, "read_network", lambda args, path, **_: model)
    draw = np.random.default_rng(0)
    images = [*draw.random((12, 16, 16, 5)).astype(np.float32)]
    paths = [str(tmp_path / f"{number:02d}.tif") for number in range(14)]
    for path, image in zip(paths, [*images, images[7]], strict=False):
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    Path(paths[13]).write_bytes(b"no image")
    collection = Collection(paths, paths, ["all"] * 14, [""] * 14, [""] * 14)
    found = _alike_in_features(argparse.Namespace(trunk="mine"), collection, [])
    assert [(pair.first, pair.second) for pair in found] == [(7, 12)]


def cell(draw: np.random.Generator, wafer: np.ndarray) -> Image.Image:
    """One of many alike: the same grains, its own shading, grain and crack."""
    side = len(wafer)
    shading = Image.fromarray(draw.uniform(-22, 22, (5, 5)).astype(np.float32))
    image = wafer + np.asarray(shading.resize((side, side), Image.Resampling.BICUBIC))
    picture = Image.fromarray(np.clip(image + draw.normal(0, 3, image.shape), 0, 255).astype("u1"))
    ends = [int(value) for value in draw.integers(0, side, 4)]
    ImageDraw.Draw(picture).line(ends, fill=20, width=5)
    return picture


def uniform_collection(root: Path) -> set[tuple[str, str]]:
    """60 images of one wafer in two classes, one of them copied three ways; the copies."""
    draw = np.random.default_rng(0)
    grains = Image.fromarray(draw.uniform(60, 200, (22, 22)).astype(np.uint8))
    wafer = np.asarray(grains.resize((150, 150), Image.Resampling.BICUBIC)).astype(np.float32)
    wafer[48:52], wafer[98:102] = 30, 30  # busbars
    for number in range(60):
        path = root / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = cell(draw, wafer)
        image.save(path)
    (root / "b/same.png").write_bytes(path.read_bytes())
    image.save(root / "b/saved.jpg", quality=60)
    image.crop((4, 2, 146, 147)).save(root / "b/cropped.png")
    return {("b/59.png", f"b/{name}") for name in ("same.png", "saved.jpg", "cropped.png")}


def test_images_that_are_alike_by_nature_are_not_called_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 solar cells of a few wafers were reported as 77 pairs of one picture each."""
    copies = uniform_collection(tmp_path / "cells")
    code = run_command("check", [str(tmp_path / "cells"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    with open(tmp_path / "out" / "check.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(r["file"], r["other_file"]) for r in rows if r["kind"] == "duplicate"}
    assert copies <= found and len(found) <= len(copies) + 2  # copies of copies
    alike = [row for row in rows if row["kind"] == "look-alike"]
    assert len(alike) > 20 and not any("same" in row["detail"] for row in alike)
    assert {row["kind"] for row in rows} <= {"duplicate", "look-alike", "odd"}
    assert code == (1 if any(row["kind"] == "odd" for row in rows) else 0)
    assert f"{len(alike)} pairs that look alike" in said
    assert "differ in detail" in said and "with two labels" in said
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.count("<figure>") < len(rows) and "all of them are in check.csv" in page
