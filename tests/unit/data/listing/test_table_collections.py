"""Collections in tables: CSV, Parquet, JSON lines, and folders as Hugging Face has them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.data import open_dataset
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

NATIVE = Reading(depth="native")


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), value).save(path)


def test_what_val_lacks_and_what_it_shares_with_train_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "again.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "t.csv").write_text(
        "file,label,split\n0.png,a,train\n1.png,b,train\n2.png,c,train\n"
        "3.png,b,val\nagain.png,a,val\n"
    )
    assert open_dataset("table", tmp_path / "t.csv", "val").classes == ["a", "b", "c"]
    assert "val has no images of 1 of 3 classes (c)" in caplog.text
    assert "1 of 2 images of val are also in train" in caplog.text
    assert "again.png" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_of_excel_and_powershell(tmp_path: Path, encoding: str, suffix: str) -> None:
    for number in range(2):
        picture(tmp_path / f"{number}.png", number)
    blank = "\t" if suffix == ".tsv" else ","
    text = f"file{blank}label\n0.png{blank}chêne\n1.png{blank}orme\n"
    if suffix == ".jsonl":
        text = '{"file": "0.png", "label": "chêne"}\n{"file": "1.png", "label": "orme"}\n'
    marked = text if encoding in ("utf-8-sig", "utf-16") else "\ufeff" + text
    (tmp_path / f"t{suffix}").write_bytes(marked.encode(encoding))
    found = open_dataset("table", tmp_path / f"t{suffix}")
    assert list(found.files) == ["0.png", "1.png"] and found.classes == ["chêne", "orme"]


def test_paths_labels_and_splits(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "t.csv").write_text(
        "file,label,patient,split\nimages/3.png,b,p1,train\nimages/0.png,a,p2,train\n"
        "images/1.png,a,p3,val\nimages/2.png,,p3,val\n"
    )
    train = open_dataset("table", tmp_path / "t.csv")
    assert list(train.files) == ["images/3.png", "images/0.png"]
    assert train.targets == [1, 0] and train.classes == ["a", "b"]
    assert np.asarray(train[0][0])[0, 0, 0] == 3
    assert open_dataset("table", tmp_path / "t.csv", "val").targets == [0, -1]


def test_groups_of_the_same_table(tmp_path: Path) -> None:
    from convit_ssl.data.listing.division import DivisionSpec

    lines = ["file,label,patient"]
    for number in range(12):
        picture(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},p{number // 4}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    spec = DivisionSpec(
        holdout=0.3, group_by="column:patient", labels=f"{tmp_path}/t.csv:file,label,patient"
    )
    train, val = (
        open_dataset("table", tmp_path / "t.csv", s, division=spec) for s in ("train", "val")
    )
    patients = [{int(file[:-4]) // 4 for file in side.files} for side in (train, val)]
    assert len(train) + len(val) == 12 and not patients[0] & patients[1]


def test_groups_are_a_column_of_the_collections_own_table(tmp_path: Path) -> None:
    from convit_ssl.data.listing.division import DivisionSpec

    lines = ["file,other,label,patient"]
    for number in range(12):
        picture(tmp_path / f"{number}.png", number)
        picture(tmp_path / f"{number}b.png", number)
        lines.append(f"{number}.png,{number}b.png,{'ab'[number % 2]},p{number // 4}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for given in (f"{tmp_path}/t.csv", f"{tmp_path}/t.csv:file+other,label,patient"):
        spec = DivisionSpec(holdout=0.3, group_by="column:patient")
        train, val = (open_dataset("table", given, s, division=spec) for s in ("train", "val"))
        patients = [
            {int(file.partition(".")[0]) // 4 for file in side.files} for side in (train, val)
        ]
        assert len(train) + len(val) == 12 and not patients[0] & patients[1]
    with pytest.raises(UserError, match="no column 'plate'; its columns are file, other, label"):
        open_dataset("table", given, division=DivisionSpec(holdout=0.3, group_by="column:plate"))
    with pytest.raises(UserError, match="no column 'well'"):
        open_dataset("table", f"{tmp_path}/t.csv:file,label,well")


def stained(root: Path, count: int = 3) -> Path:
    """A table of two columns of 16-bit images, in two folders."""
    lines = ["well,DAPI,GFP,class"]
    for number in range(count):
        for offset, name in enumerate(("dapi", "gfp")):
            (root / name).mkdir(exist_ok=True)
            values = np.full((8, 6), 1000 * number + offset, np.uint16)
            Image.fromarray(values).save(root / name / f"{number}.png")
        lines.append(f"A{number},dapi/{number}.png,gfp/{number}.png,{number % 2}")
    (root / "cells.csv").write_text("\n".join(lines))
    return root / "cells.csv"


@pytest.mark.parametrize("columns", ["", ":DAPI+GFP,class"])
def test_channels_in_several_files(tmp_path: Path, columns: str) -> None:
    table = stained(tmp_path)
    images = open_dataset("table", f"{table}{columns}", reading=NATIVE)
    assert len(images) == 3 and images.targets == [0, 1, 0]
    planes = read_planes(images.paths[2], None, NATIVE)
    assert planes.names == ("DAPI", "GFP")
    assert planes.values.shape == (8, 6, 2) and planes.values[0, 0].tolist() == [2000, 2001]
    assert images[1][0].shape == (8, 6, 2)
    other = open_dataset("table", f"{table}:GFP+DAPI", reading=NATIVE)
    assert read_planes(other.paths[1], None, NATIVE).values[0, 0].tolist() == [1001, 1000]
    assert not other.labelled


def test_a_missing_channel_is_one_message(tmp_path: Path) -> None:
    table = stained(tmp_path)
    (tmp_path / "gfp" / "1.png").unlink()
    images = open_dataset("table", table, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert [images[n][2] for n in range(3)] == [0, -1, 2]
    assert len(images.reader.fault_log.read()) == 1


def test_two_channels_are_not_rgb(tmp_path: Path) -> None:
    images = open_dataset("table", stained(tmp_path), max_corrupt=1.0, replace=False)
    assert images[0][2] == -1
    assert "data.channels=all" in next(iter(images.reader.fault_log.read().values()))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_with_metadata(tmp_path: Path, kind: str) -> None:
    for split, count in (("train", 3), ("validation", 2)):
        rows = []
        for number in range(count):
            picture(tmp_path / split / f"{number}.png", number)
            rows.append({"file_name": f"{number}.png", "label": "xy"[number % 2]})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if kind == "csv":
            text = "file_name,label\n" + "".join(f"{r['file_name']},{r['label']}\n" for r in rows)
        (tmp_path / split / f"metadata.{kind}").write_text(text)
    train = open_dataset("table", tmp_path)
    assert list(train.files) == [f"train/{n}.png" for n in range(3)] and train.targets == [0, 1, 0]
    val = open_dataset("table", tmp_path, "val")
    assert list(val.files) == ["validation/0.png", "validation/1.png"]


def test_splits_by_the_first_folder(tmp_path: Path) -> None:
    for name in ("train/0.png", "test/1.png"):
        picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/0.png,0\ntest/1.png,0\n")
    assert list(open_dataset("table", tmp_path).files) == ["train/0.png"]
    assert list(open_dataset("table", tmp_path, "val").files) == ["test/1.png"]


def test_parquet_with_the_images_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("CONVIT_SSL_DATA", str(tmp_path / "cache"))
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    (tmp_path / "set" / "data").mkdir(parents=True)

    def cell(value: int) -> dict[str, Any]:
        data = io.BytesIO()
        Image.new("RGB", (8, 6), (value, 0, 0)).save(data, "PNG")
        return {"bytes": data.getvalue(), "path": None}

    for split, count in (("train", 4), ("test", 2)):
        table = pyarrow.table(
            {"image": [cell(n) for n in range(count)], "label": [n % 2 for n in range(count)]}
        ).replace_schema_metadata({"huggingface": json.dumps(names)})
        parquet.write_table(table, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    train = open_dataset("table", tmp_path / "set")
    assert train.classes == ["cat", "dog"] and train.targets == [0, 1, 0, 1]
    assert [np.asarray(train[n][0])[0, 0, 0] for n in range(4)] == [0, 1, 2, 3]
    val = open_dataset("table", tmp_path / "set", "val")
    assert len(val) == 2 and val.root == train.root


def test_parquet_of_paths(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    picture(tmp_path / "a.png")
    pandas.DataFrame({"path": ["a.png"], "target": [3]}).to_parquet(tmp_path / "t.parquet")
    assert open_dataset("table", tmp_path / "t.parquet").targets == [0]
    assert list(open_dataset("table", tmp_path / "t.parquet").files) == ["a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,age\nx,3\n", "has no column with images"),
        ("file,label\n", "has no rows"),
        ("file,label\na.png,x\nb.png\n", "has 1 cells"),
        ("file,split\na.png,val\n", "names no images of train"),
        ("file,label\na.png,x\na.png,y\n", r"a\.png is in .* twice, as x and as y"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_dataset("table", tmp_path / "t.csv")


def test_a_file_and_a_link_to_it_have_one_class(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").hardlink_to(tmp_path / "a.png")
    for other in ("b.png", "c.png", "./a.png"):
        (tmp_path / "t.csv").write_text(f"file,label\na.png,x\n{other},y\n")
        with pytest.raises(UserError, match="twice, as x and as y"):
            open_dataset("table", tmp_path / "t.csv")


def test_a_table_without_val(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("file\na.png\n")
    with pytest.raises(UserError, match=r"no rows of val.*data\.holdout"):
        open_dataset("table", tmp_path / "t.csv", "val")
    with pytest.raises(UserError, match="no column 'file2'"):
        open_dataset("table", f"{tmp_path}/t.csv:file2")
    with pytest.raises(UserError, match="holds no metadata"):
        open_dataset("table", tmp_path)
