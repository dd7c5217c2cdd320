"""Further broken files of users: tables, arrays, shards and records. Limits are lowered to test."""

from __future__ import annotations

import base64
import json
import tarfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl import reading
from convit_ssl.cli.study import probes as study_probes
from convit_ssl.data import open_dataset
from convit_ssl.data.listing import tables
from convit_ssl.data.listing.division import DivisionSpec, divide
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers import numpy as numpy_reader
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.shards import tar as shards
from convit_ssl.data.shards.tables import _digest, read_table
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import load_features
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.studies import runner as study_runner
from convit_ssl.export.proof import by_reference
from tests.bad_input.parsers import _features

READER = "convit_ssl.data.readers.numpy"
LISTING = Listing(Path("/data"), ["a.png", "b.png", "c.png"], [-1] * 3, [])


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


# Three rows by its footer, and one value in the column of labels; found by fuzzing.
_SHORT_COLUMN = (
    "eNqVU81u00AQnl072xTlkFbsalcykoVSq0hp2iC1oMo9jEMiflLRRqoibjjBmFZuaxJo+gCIB+BpOHHsqUcehiO7"
    "a7sV0AsjeWdn5pvvm5HWBzjqcpfv8nDIGYdVgAd+DQDiTn6WkuVwYvySTkw333VO8pQDv89lW2Ob+mPeDqwvlSVZ"
    "s00rKxp9r0X1yQh1WqDpfd4aamfomyGURkrPt/gqF7eUsl5VZL3CCrp+R9ZKLftGynGIQ7mrwm2QbD79kJzG3AXe"
    "WKPSfX+cJWsw9IyWqxO1LJ4kGQimPNUOwOMNtQ2sqQokp4KJ70T8IMHboH73gqpttuEU9NHULhQPFVMBMC1hCN2S"
    "sFCyjNdE/CTBVxpckf/b8B+tR1qJuqbliyNYUBffHFCebOBo9Hq8W+wuf5FNY0/Q2CEW9gpxgVGKA8QUe6nNRRHi"
    "vrn0EF/YxK3H4hod3sT7J5r0qb70e/2yyQR4Y0cGOX8zfplNbJziM0syLaHGBlXTkanreZ6bueycUYXpDyxptPiL"
    "34wSncbjy6yKoz/qe3sg/TyeffycfNqY5vlGPJudL/yLZDY/Pj/zH+90tjpd1dZvwTyHrn46B/oP+A0VPIfB"
)


def test_a_parquet_file_with_columns_of_different_lengths(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(zlib.decompress(base64.b64decode(_SHORT_COLUMN)))
    with pytest.raises(UserError, match=r"a\.parquet: it is damaged; it has .* 'label' has"):
        tables.read_table(str(path))


@pytest.mark.parametrize(
    "bounds", ["[NaN, 4]", "[0, 4.0]", "[true, 4]", "[-1, 4]", "[3, 3]", "[0, 5]"]
)
def test_features_whose_manifest_names_other_columns(bounds: str, tmp_path: Path) -> None:
    for name, content in _features().items():
        (tmp_path / name).write_bytes(content.replace(b"[0, 4]", bounds.encode()))
    with pytest.raises(UserError, match=r"manifest\.json says that cls is columns .* of 4"):
        load_features(tmp_path)


def test_a_split_with_an_image_on_both_sides_is_refused(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("file,part\na.png,train\nb.png,test\nc.png,train\na.png,test\n")
    with pytest.raises(UserError, match=r"two different rows for a\.png: rows 2 and 5"):
        divide(LISTING, DivisionSpec(file=str(split)))
    split.write_text("file,part\na.png,train\nb.png,test\nc.png,train\na.png,train\n")
    assert divide(LISTING, DivisionSpec(file=str(split))).folds == 1  # said twice, and the same


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file\na.png\n", "needs file and part"),
        ("file,part\na.png,training\nb.png,test\n", "row 2 .* has the part 'training'"),
        ("file,part\na.png,-1\nb.png,test\n", "row 2 .* has the part '-1'"),
        ("file,part,part\na.png,train,test\n", "two columns with the same name"),
        ("file,part\na.png,train,x\n", "row 2 .* has 3 cells"),
        ("file,part\n", "has no rows"),
    ],
)
def test_a_split_without_sense(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        divide(LISTING, DivisionSpec(file=str(tmp_path / "split.csv")))


def test_a_split_in_utf16_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    """Read like a list; without its mark nothing says what it is."""
    text = "file,part\na.png,train\n"
    (tmp_path / "split.csv").write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match="has no test part"):
        divide(LISTING, DivisionSpec(file=str(tmp_path / "split.csv")))
    (tmp_path / "split.csv").write_bytes("é,part\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="not UTF-8 text"):
        divide(LISTING, DivisionSpec(file=str(tmp_path / "split.csv")))


def test_a_nested_column_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``str`` of a list would make a class of it."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"file": ["a.png", "b.png"], "label": [[0], [1]], "box": [{"x": 1}, {"x": 2}]}
    parquet.write_table(arrow.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"column 'label' of the table .* holds lists or structs"):
        tables.read_table(str(tmp_path / "t.parquet"), ["file", "label"])
    assert list(tables.read_table(str(tmp_path / "t.parquet"))) == ["file"]
    assert "holds lists or structs" in capsys.readouterr().err


def test_a_nested_value_in_lines_is_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"file_name": "a.png", "label": ["cat", "dog"]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    assert set(open_dataset("table", tmp_path).targets) == {-1}
    assert "'label' of" in capsys.readouterr().err


def test_a_parquet_table_of_endless_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"file": ["a.png"] * 5}), tmp_path / "t.parquet")
    monkeypatch.setattr(tables, "MOST_ROWS", 4)
    with pytest.raises(UserError, match="has 5 rows, and the limit is 4"):
        tables.read_table(str(tmp_path / "t.parquet"))


def test_damaged_pages_of_parquet_with_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of contents is whole, the images are not."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("CONVIT_SSL_DATA", str(tmp_path / "cache"))
    place = tmp_path / "set" / "train-00000-of-00001.parquet"
    place.parent.mkdir()
    images = [{"bytes": np.random.default_rng(n).bytes(500), "path": None} for n in range(20)]
    parquet.write_table(arrow.table({"image": images, "label": [0, 1] * 10}), place)
    data = bytearray(place.read_bytes())
    data[4:400] = bytes(396)
    place.write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged: .*; copy or download it again"):
        open_dataset("table", tmp_path / "set")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros((20, 20), np.uint8)}, "limit of 300 pixels"),
        ({"a": np.zeros((4, 20, 20), np.uint8)}, "limit of 300 pixels"),
        ({"a": np.array([{"x": 1}], object)}, "Python objects"),
        ({"a": np.zeros(4), "b": np.zeros(4)}, "2 arrays"),
        ({"a": np.zeros((8, 8), "U9")}, "is not an image"),
        ({"a": np.zeros((8, 8, 0), np.uint8)}, "channels"),
        ({}, "0 arrays"),
    ],
)
def test_an_npz_is_refused_before_it_is_unpacked(
    arrays: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{READER}.check_size", lambda w, h: check_size(w, h, 300))
    path = _npz(tmp_path / "a.npz", **arrays)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was unpacked"))
    with pytest.raises(ValueError, match=words):
        numpy_reader.read(ImageFile(str(path)), "", Reading())


def test_arrays_of_a_reference_are_refused_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ARRAYS_LIMIT", 1000)
    path = _npz(tmp_path / "r.npz", images=np.zeros((1, 3, 16, 16)), features=np.zeros((1, 4)))
    model: Any = SimpleNamespace(config=SimpleNamespace(in_chans=3))
    with pytest.raises(UserError, match="6,176 bytes unpacked, and the limit is 1,000"):
        by_reference(model, path)
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(UserError, match=r"is not an \.npz"):
        by_reference(model, tmp_path / "t.npz")


def test_a_member_of_a_shard_that_leads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = -512
    with pytest.raises(tarfile.ReadError, match=r"size of a\.png is negative"):
        shards._entries([member], "x.tar")  # type: ignore[arg-type]


def test_a_table_of_contents_with_negative_places(tmp_path: Path) -> None:
    contents = [[("a.png", -512, 10, None)]]
    path = tmp_path / "contents.json"
    path.write_text(json.dumps([_digest(contents), contents]))  # type: ignore[arg-type]
    assert read_table(path) is None


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, "3", '{"accuracy": 7.5}', '{"accuracy": "x"}']
)
def test_a_kept_row_of_a_study_is_measured_again(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "row.json").write_text(text)
    assert study_probes._kept(tmp_path / "row.json") is None
    assert "measuring it again" in capsys.readouterr().err
    assert study_probes._kept(tmp_path / "none.json") is None
    (tmp_path / "row.json").write_text('{"accuracy": 0.5, "a": 1}')
    assert study_probes._kept(tmp_path / "row.json") == {"accuracy": 0.5, "a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"accuracy": 7.5}', "accuracy"), ('{"accuracy": "0.5"}', "accuracy"),
     ('{"accuracy": null}', "no accuracy")],
)  # fmt: skip
def test_a_result_out_of_range_fails_its_arm(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    arm = SimpleNamespace(arm=SimpleNamespace(labelled=True))
    state: Any = SimpleNamespace(folder=tmp_path, run=arm, status="", message="", result=None)
    assert study_runner._collect(state)
    assert state.status == "failed" and words in state.message and state.result is None


def test_a_damaged_result_fails_its_arm_and_says_the_way_out(tmp_path: Path) -> None:
    """Such a run was started again, which said that it was finished."""
    write_json({"accuracy": 0.5}, tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace("0.5", "0.7"))
    state: Any = SimpleNamespace(folder=tmp_path, run=None, status="waiting", message="")
    assert study_runner._collect(state)
    assert state.status == "failed"
    assert "is damaged" in state.message and "Delete it, and the same" in state.message


def test_a_checkpoint_that_is_a_folder(tmp_path: Path) -> None:
    from convit_ssl.export import load_trunk

    (tmp_path / "model.torch").mkdir()
    with pytest.raises(UserError, match=r"model\.torch"):
        load_trunk(tmp_path / "model.torch")
    (tmp_path / "run" / "checkpoints" / "checkpoint_e1_s1.torch").mkdir(parents=True)
    with pytest.raises(UserError, match="run"):
        load_trunk(tmp_path / "run")


def test_a_line_of_many_megabytes_among_measurements(tmp_path: Path) -> None:
    """It is one damaged or one huge row, and the others count."""
    from convit_ssl.runs import RunFolder

    rows = ['{"kind": "step", "step": 1}', '{"x": "' + "a" * 5_000_000, '{"kind": "step"}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    found, damaged = RunFolder(tmp_path).rows()
    assert len(found) == 2 and damaged == [2]


def test_weights_in_parts_whose_parts_are_missing(tmp_path: Path) -> None:
    """As Hugging Face writes large models, downloaded without their parts."""
    from convit_ssl.export import load_trunk

    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for place in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with pytest.raises(UserError) as caught:
            load_trunk(place)
        assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 800
