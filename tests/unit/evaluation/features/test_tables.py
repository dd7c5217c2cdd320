"""Features leave as tables with names, labels, groups and sizes, and as maps of patches."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.cli.main import run_command
from convit_ssl.evaluation.features.feature_set import FeatureSet, load_features
from convit_ssl.evaluation.features.tables import FeatureTable

SMALL = ["random:convit_nano", "--img-size", "16", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of two classes and two patients, of two sizes."""
    for number in range(6):
        kind = "ab"[number % 2]
        path = tmp_path / "images" / "train" / kind / f"p{number // 3}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24 + number, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def extracted(folder: Path, *more: str) -> Path:
    out = folder.parent / "features"
    words = [*SMALL, "--data-dir", str(folder), "--splits", "train", "--out", str(out), *more]
    assert run_command("features", words) == 0
    return out / "train"


def test_csv_and_parquet_hold_the_same_as_npy(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    grouped = ("--group-by", "name:(p[0-9])")
    out = extracted(folder, "--to", "npy", "csv", "parquet", *grouped)
    found = load_features(out)
    with (out / "features.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(found.paths)
    assert [row["label"] for row in rows] == ["a"] * 3 + ["b"] * 3
    assert {row["group"] for row in rows} == {"p0", "p1"}
    assert {row["height"] for row in rows} == {"20"}
    widths = {Path(row["path"]).stem[-1]: int(row["width"]) for row in rows}
    assert widths == {str(number): 24 + number for number in range(6)}
    columns = [name for name in rows[0] if name.startswith(("class", "patch"))]
    values = np.array([[float(row[name]) for name in columns] for row in rows], np.float32)
    np.testing.assert_array_equal(values, found.features)

    table = parquet.read_table(out / "features.parquet").to_pydict()
    assert table["path"] == list(found.paths)
    first, last = found.columns["class_last1"]
    np.testing.assert_array_equal(
        np.array(table["class_last1"], np.float32), found.features[:, first:last]
    )


def test_patch_maps_are_the_networks_own(folder: Path) -> None:
    import torch

    from convit_ssl.data import evaluation_transform
    from convit_ssl.models import create_model

    out = extracted(folder, "--tokens", "patch")
    rows, columns, channels = json.loads((out / "manifest.json").read_text())["patches"]
    maps = np.load(out / "features.npy").reshape(-1, rows, columns, channels)
    assert maps.shape == (6, 4, 4, 128)
    torch.manual_seed(0)
    model = create_model("convit_nano", num_classes=0, img_size=16).eval()
    image = Image.open(load_features(out).paths[0]).convert("RGB")
    with torch.no_grad():
        (expected,) = model.get_intermediate_layers(
            evaluation_transform(16)(image)[None], n=1, reshape=True
        )
    np.testing.assert_allclose(maps[0], expected[0].permute(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tokens", "patch", "--to", "csv"], "patch maps are written as .npy only"),
        (["--tokens", "patch", "--columns", "class_last1"], "has no effect with --tokens patch"),
        (["--group-by", "name:(x)"], "group"),
    ],
)
def test_what_does_not_fit_is_refused_first(
    folder: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "features"
    given = [*SMALL, "--data-dir", str(folder), "--splits", "train", "--out", str(out), *more]
    assert run_command("features", given) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_pandas_has_what_the_file_has() -> None:
    pytest.importorskip("pandas")
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    features = FeatureSet(numbers, np.array([0, -1]), ["x.png", "y.png"], classes=["cat"])
    frame = FeatureTable(features, {"x.png": "one"}).to_pandas()
    assert list(frame["path"]) == ["x.png", "y.png"]
    assert frame["label"][0] == "cat" and frame["group"][0] == "one"
    assert list(frame.columns[-3:]) == ["features_0", "features_1", "features_2"]
    np.testing.assert_array_equal(frame.iloc[:, -3:].to_numpy(), numbers)
