"""`convit-ssl knn`, `linear` and `features` as a user runs them."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit_ssl.cli.main import main, run_command
from convit_ssl.data import evaluation_transform, open_dataset
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.evaluation.features.extraction import load_features
from convit_ssl.export import load_trunk
from convit_ssl.models import ConViT, ConViTConfig

CONFIG = ConViTConfig(
    img_size=16, patch_size=4, embed_dim=12, depth=4, num_heads=4, num_gpsa_layers=2, num_classes=0
)
QUICK = ["--device", "cpu", "--workers", "0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for label, name in enumerate(("ant", "bee", "cat")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (16, 16, 3))
                pixels[..., label] += 120
                path = tmp_path / "images" / split / name / f"{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "images"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a training run leaves: a student, and a teacher that differs from it."""
    weights = {}
    for seed, role in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        weights[role] = ConViT(CONFIG).state_dict()
    state = {
        "classy_state_dict": {
            "base_model": {"model": {"trunk": weights["student"], "heads": {}}},
            "loss": {f"teacher.trunk.{key}": value for key, value in weights["teacher"].items()},
        },
        "convit_ssl": {"format": 1, "model": asdict(CONFIG), "method": "dino", "epoch": 3},
    }
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(state, checkpoints / "checkpoint_e0003.torch")
    (checkpoints / "last.torch").symlink_to("checkpoint_e0003.torch")
    return tmp_path / "run"


@pytest.fixture
def options(folder: Path, tmp_path: Path) -> list[str]:
    where = ["--data", "folder", "--data-dir", str(folder), "--cache", str(tmp_path / "cache")]
    return [*where, *QUICK]


def results(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text())["results"]
    assert isinstance(rows, list)
    return rows


def test_knn_of_a_run_with_references(
    run_folder: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "knn.json", tmp_path / "confusion.png"
    extra = ["--references", "--json", str(out), "--confusion", str(picture)]
    assert main(["knn", str(run_folder), *options, *extra]) == 0
    rows = results(out)
    assert [row["name"] for row in rows] == [
        "raw pixels", "untrained network", "ConViT dino epoch 3, teacher",
    ]  # fmt: skip
    assert rows[0]["accuracy"] == 1.0
    assert len({row["weights"] for row in rows}) == 3
    assert rows[2]["fingerprint"]["val_data"] == rows[0]["fingerprint"]["val_data"]
    assert rows[2]["images"] == {"train": 24, "val": 15}
    shown = capsys.readouterr().out
    assert "train has 24 labelled images: k = 100, 200 became 24" in shown
    assert "recall by class" in shown
    assert set(rows[0]["by_metric"]) == {"cosine", "euclidean"}
    assert "the better one counts" in shown
    assert rows[2]["figure"] == "weighted 20-NN (cosine, all images)"
    assert rows[2]["balanced_accuracy"] == rows[2]["accuracy"], "classes of equal size"
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_linear_of_teacher_and_student_by_any_number_of_processes(
    run_folder: Path, options: list[str], tmp_path: Path
) -> None:
    rows = {}
    for processes, weights in ((1, "teacher"), (2, "teacher"), (1, "student")):
        out = tmp_path / f"{processes}{weights}.json"
        cache = ["--cache", str(tmp_path / f"cache{processes}"), "--batch-size", "5"]
        probe = ["--epochs", "1", "--processes", str(processes), "--weights", weights]
        arguments = [str(run_folder), *options, *cache, *probe, "--json", str(out)]
        assert main(["linear", *arguments]) == 0
        [rows[processes, weights]] = results(out)
    one, two = rows[1, "teacher"], rows[2, "teacher"]
    for key in ("accuracy", "head", "sweep", "logistic", "weights", "fingerprint", "settings"):
        assert one[key] == two[key], key
    assert rows[1, "student"]["weights"] != one["weights"]
    assert len(one["sweep"]) == 4 * 13


def test_features_are_reused(
    run_folder: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    arguments = ["features", str(run_folder), *options, "--out", str(out)]
    assert main(arguments) == 0
    assert "24 images x 36 (class_last1, class_last2, patch_mean_last1)" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "reused" in capsys.readouterr().out
    assert main(["knn", str(out), "--token", "patch_mean_last1", "-k", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "weighted 3-NN (cosine, all images): 15 images of val, from 24 of train" in shown
    assert main(["knn", str(out), "--mask", "content"]) == 2
    assert "--mask has no effect on the features in" in capsys.readouterr().err


def test_features_of_images_without_labels(
    run_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = folder / "train" / next((folder / "train").iterdir()).name
    out = tmp_path / "features"
    arguments = ["features", str(run_folder), "--data-dir", str(flat), "--out", str(out), *QUICK]
    assert main([*arguments, "--splits", "val"]) == 2
    assert "no val/" in capsys.readouterr().err
    assert not out.exists()
    assert main(arguments) == 0  # nobody divided this folder
    printed = capsys.readouterr().out
    assert "0 labelled" in printed and "next:" not in printed


def test_any_block_can_be_asked_for(
    run_folder: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    asked = ["--token", "patch_mean_last4", "--references", "--json", str(out)]
    assert main(["knn", str(run_folder), *options, *asked]) == 0
    assert [row["settings"]["token"] for row in results(out)] == ["patch_mean_last4"] * 3
    assert main(["knn", str(run_folder), *options, "--token", "patch_mean"]) == 2
    assert "no feature 'patch_mean'; it has class_last1" in capsys.readouterr().err
    arguments = ["features", str(run_folder), *options, "--out", str(tmp_path / "f")]
    assert main([*arguments, "--columns", "class_last2", "patch_mean_last3"]) == 0
    assert "24 images x 24 (class_last2, patch_mean_last3)" in capsys.readouterr().out


@pytest.mark.parametrize("of", [".", "checkpoints/last.torch"])
def test_the_images_of_a_run_are_measured_where_none_are_named(
    of: str, run_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "config.yaml").write_text(f"data:\n  name: folder\ndata_dir: {folder}\n")
    out = tmp_path / "r.json"
    quick = [*QUICK, "--cache", str(tmp_path / "cache"), "--json", str(out)]
    assert main(["knn", str(run_folder / of), *quick]) == 0
    assert f"images of the run: --data folder --data-dir {folder}" in capsys.readouterr().err
    assert results(out)[0]["images"] == {"train": 24, "val": 15}
    asked = ["--data", "digits", "--subset", "per_class=4"]
    assert main(["knn", str(run_folder / of), *quick, *asked]) == 0
    assert "images of the run" not in capsys.readouterr().err


@pytest.mark.parametrize("config", ["data: 3\n", "data: [a]\n", "- a\n", "data: {name: [x]}\n", ""])
def test_a_run_that_does_not_say_its_images_is_asked_for_them(
    config: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "config.yaml").write_text(config)
    assert run_command("knn", [str(run_folder), *QUICK]) == 2
    assert f"no images given, and none are known of '{run_folder}'; add" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("knn", ["runs/absent", *QUICK]) == 2
    assert "known of 'runs/absent', which does not exist; add" in capsys.readouterr().err


def test_mask_and_subset_change_what_is_measured(
    run_folder: Path, options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    asked = ["--mask", "content", "--subset", "per_class=4,seed=1", "--json", str(out)]
    assert main(["knn", str(run_folder), *options, *asked]) == 0
    [row] = results(out)
    assert row["images"] == {"train": 12, "val": 15}
    assert row["name"].endswith("content masked")
    assert row["settings"]["mask"] == "content"


@pytest.mark.parametrize("command", ["knn", "linear"])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no data", "no images given, and none are known of '"),
        ("no val", "has no val/ folder"),
        ("unknown classes", "only in val/: dog"),
        ("no labels", "have no labels"),
        ("other width", "nothing was loaded"),
        ("no checkpoint", "absent.torch"),
        ("unknown variant", "unknown model 'convit_nan'; did you mean 'convit_nano'"),
        ("pixels have no reference", "CKPT is 'pixels'; leave --references out"),
        ("pixels have no gates", "--mask has no effect on raw pixels"),
    ],
)
def test_bad_input_is_one_message(
    command: str, case: str, message: str, run_folder: Path, options: list[str],
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    checkpoint = str(run_folder)
    if case == "no data":
        options = QUICK
    elif case == "no val":
        (folder / "val").rename(tmp_path / "elsewhere")
    elif case == "unknown classes":
        (folder / "val" / "bee").rename(folder / "val" / "dog")
    elif case == "no labels":
        for split in ("train", "val"):
            for path in list((folder / split).glob("*/*.png")):
                path.rename(folder / split / f"{path.parent.name}{path.name}")
            for name in ("ant", "bee", "cat"):
                (folder / split / name).rmdir()
    elif case == "other width":
        path = run_folder / "checkpoints" / "last.torch"
        state = torch.load(path, weights_only=True)
        state["convit_ssl"]["model"]["embed_dim"] = 16
        torch.save(state, path)
    elif case == "no checkpoint":
        checkpoint = "absent.torch"
    elif case == "unknown variant":
        checkpoint = "random:convit_nan"
    elif case == "pixels have no reference":
        checkpoint, options = "pixels", [*options, "--references"]
    else:
        checkpoint, options = "pixels", [*options, "--mask", "content"]
    out = tmp_path / "never.json"
    assert main([command, checkpoint, *options, "--json", str(out)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith(f"convit-ssl {command}: ")
    assert "Traceback" not in captured.err
    assert not out.exists()
    assert not list(tmp_path.glob("cache/.*"))


def test_results_of_several_seeds(
    run_folder: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for seed, subset in ((0, "per_class=6"), (1, "per_class=6"), (2, "per_class=5")):
        files.append(str(tmp_path / f"{seed}.json"))
        asked = ["--subset", subset, "--seed", str(seed), "--json", files[-1], "-k", "3"]
        assert main(["knn", str(run_folder), *options, *asked]) == 0
    capsys.readouterr()
    assert run_command("results", files) == 0
    assert capsys.readouterr().out.count("ConViT dino epoch 3,") == 3
    assert run_command("results", [*files[:2], "--average"]) == 0
    assert "± 0.0" in capsys.readouterr().out
    assert run_command("results", [*files, "--average"]) == 2
    assert "are not averaged: their fingerprint (train_data) differ" in capsys.readouterr().err


def test_16_bit_images_are_scaled_as_in_training(tmp_path: Path, run_folder: Path) -> None:
    """Dim images of a camera of 12 bits: like its bright ones, not each to its own white."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(8):
            peak = (200, 4000)[number // 2 % 2]
            pixels = generator.integers(0, peak, (16, 16)).astype(np.uint16)
            path = tmp_path / "camera" / split / "ab"[number % 2] / f"{number}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    checkpoint = run_folder / "checkpoints" / "checkpoint_e0003.torch"
    where = ["--data-dir", str(tmp_path / "camera"), *QUICK]
    for level, brightest in ((None, 4095), (0, 4095), (16383, 16383)):
        state = torch.load(checkpoint, weights_only=False)
        state["convit_ssl"]["data"] = {"name": "folder", "white_level": level}
        torch.save(state, checkpoint)
        out = tmp_path / f"features_{level}"
        assert main(["features", str(run_folder), *where, "--out", str(out)]) == 0
        model = load_trunk(run_folder)
        images = open_dataset(
            "folder",
            tmp_path / "camera",
            "val",
            evaluation_transform(model.config.img_size),
            reading=Reading(white_level=brightest),
        )
        pixels = torch.stack([images[i][0] for i in range(len(images))])
        with torch.inference_mode():
            tokens = model.forward_features(pixels)[:, 0].numpy()
        found = load_features(out / "val").column("class_last1")
        np.testing.assert_allclose(found, tokens, atol=1e-5)


@pytest.fixture
def tabled(run_folder: Path, folder: Path, tmp_path: Path) -> Path:
    """A run on images in one folder, whose labels and patients are in a table that is gone."""
    images = tmp_path / "flat" / "pictures"
    images.mkdir(parents=True)
    rows = ["file,part,label,group"]
    for number, path in enumerate(sorted((folder / "train").rglob("*.png"))):
        path.rename(images / f"{number:02d}.png")
        rows.append(f"pictures/{number:02d}.png,train,{path.parent.name},P{number % 4}")
    rows[1] = rows[1].replace("train", "test")
    (run_folder / "split.csv").write_text("\n".join(rows) + "\n")
    (run_folder / "config.yaml").write_text(
        f"data:\n  name: folder\n  labels: {tmp_path}/gone.csv:name,what,who\n"
        f"  group_by: column:who\ndata_dir: {images.parent}\n"
    )
    return run_folder


def test_explore_has_the_labels_and_groups_of_the_run(
    tabled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--cache", str(tmp_path / "cache"), *QUICK]
    asked = [str(tabled), *cache, "--layout", "pca", "--out", str(tmp_path / "explore")]
    assert main(["explore", *asked]) == 0
    assert "24 images, 24 labelled" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "explore" / "explore.csv").open()))
    assert {row["label"] for row in rows} == {"ant", "bee", "cat"}
    assert {row["group"] for row in rows} == {"P0", "P1", "P2", "P3"}


def test_explore_reads_labels_by_paths_within_the_folder_of_images(
    tabled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(tmp_path / "flat"), "--cache", str(tmp_path / "cache"), *QUICK]
    asked = ["--labels", f"{tabled / 'split.csv'}:file,label", "--layout", "pca"]
    assert main(["explore", "pixels", *where, *asked, "--out", str(tmp_path / "explore")]) == 0
    assert "24 images, 24 labelled" in capsys.readouterr().out


@pytest.mark.parametrize("named", [False, True])
def test_features_have_the_labels_and_groups_of_the_run(
    named: bool, tabled: Path, tmp_path: Path
) -> None:
    where = ["--data-dir", str(tmp_path / "flat")] if named else []
    asked = [str(tabled), *QUICK, *where, "--to", "csv", "--out", str(tmp_path / "features")]
    assert main(["features", *asked]) == 0
    rows = list(csv.DictReader((tmp_path / "features" / "train" / "features.csv").open()))
    assert {row["label"] for row in rows} == {"ant", "bee", "cat"}
    assert {row["group"] for row in rows} == {"P0", "P1", "P2", "P3"}


def test_the_report_has_the_labels_of_the_run(tabled: Path, tmp_path: Path) -> None:
    assert main(["report", str(tabled), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(name in page for name in ("ant", "bee", "cat")) and '"pictures"' not in page
