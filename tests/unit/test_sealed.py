"""No changed digit of a small file of ours is read in silence."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convit_ssl.analysis.run_panels import read_check
from convit_ssl.analysis.runs import read_run
from convit_ssl.checksums import say_once
from convit_ssl.data.checks import survey
from convit_ssl.data.checks.collection import COLUMNS
from convit_ssl.data.listing.division import DivisionSpec, divide
from convit_ssl.data.listing.folders import Listing
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import read_rows, write_json
from convit_ssl.reading import read_json, read_record
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import (
    KEY,
    changed_since,
    note_beside,
    seal,
    seal_line,
    seal_yaml,
    yaml_is_whole,
)

ROW = {
    "kind": "knn", "name": "a run", "accuracy": 0.8125, "seed": 3, "interval_95": [0.75, 0.875],
    "settings": {"k": 20, "temperature": 0.07}, "loss": math.inf,
}  # fmt: skip


def flips(data: bytes) -> Iterator[bytes]:
    """The bytes with one bit of each byte turned, one at a time."""
    for place in range(len(data)):
        yield data[:place] + bytes([data[place] ^ (1 << place % 7)]) + data[place + 1 :]


def test_no_bit_of_a_result_is_read_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(ROW, path)
    assert read_json(path) == ROW
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        try:
            found = read_json(path)
        except UserError:
            continue
        # White space, or the name of the checksum itself: every entry is as it was.
        assert {key: found.get(key) for key in ROW} == ROW


def test_no_bit_of_a_measurement_is_read_in_silence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    row = {"kind": "eval", "epoch": 3, "knn": 0.8125}
    line = seal_line(row)
    run.metrics.write_text(line + line)
    assert run.rows() == ([row, row], [])
    assert run.last_row() == row
    for data in flips(line.encode().rstrip()):
        run.metrics.write_bytes(data + b"\n")
        for found in run.rows()[0]:
            assert {key: found.get(key) for key in row} == row


def test_older_files_have_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(ROW))
    assert read_json(path) == ROW
    run = RunFolder(tmp_path)
    run.metrics.write_text('{"knn": 0.5}\n')
    assert run.rows() == ([{"knn": 0.5}], [])
    assert yaml_is_whole("a: 1\n")


def test_a_file_may_be_indented_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(ROW, path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7, sort_keys=True))
    assert read_json(path) == ROW


def test_an_edited_file_says_how_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(ROW, path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "accuracy": 0.9}))
    with pytest.raises(UserError, match=f'result.json is damaged.*entry "{KEY}"'):
        read_rows([path])
    with pytest.raises(UserError, match="Delete it, and the same command"):
        read_record(path)
    del content[KEY]
    path.write_text(json.dumps({**content, "accuracy": 0.9}))
    assert read_rows([path])[0]["accuracy"] == 0.9


def test_sealing_twice_is_sealing_once() -> None:
    assert seal(seal(ROW)) == seal(ROW)


def test_a_configuration_begins_with_its_checksum() -> None:
    text = seal_yaml("a: 1\nb: 2\n")
    assert yaml_is_whole(text)
    assert not yaml_is_whole(text.replace("b: 2", "b: 3"))
    assert not yaml_is_whole(text[: -len("b: 2\n")])


def test_a_table_that_people_edit_is_read_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "check.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    assert changed_since(path) is None
    note_beside(path)
    assert "changed" not in read_check(path)
    assert read_check(tmp_path) == read_check(path)  # of the folder
    path.write_text(",".join(COLUMNS) + "\n" + "," * (len(COLUMNS) - 1) + "\n")
    assert "was edited, or it is damaged" in (changed_since(path) or "")
    assert "check.csv" in read_check(path)["changed"]


@pytest.mark.parametrize(
    ("name", "digit", "said"),
    [
        ("result.json", "0.8125", "No verdict.*result.json is damaged"),
        ("config.yaml", "epochs: 3", "config.yaml is not what the run wrote"),
        ("metrics.jsonl", '"step": 3', "damaged or not JSON objects: 1"),
        ("unreadable.jsonl", "b3.png", "unreadable.jsonl: damaged lines were left out: 1"),
    ],
)
def test_a_report_says_what_it_leaves_out(name: str, digit: str, said: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_json(ROW, run.result)
    run.config.write_text(seal_yaml("optim:\n  epochs: 3\n"))
    run.metrics.write_text(seal_line({"kind": "epoch", "epoch": 3, "step": 3, "loss": 1.5}))
    run.unreadable.write_text(seal_line({"path": "b3.png", "reason": "cut short"}))
    whole = " ".join(read_run(tmp_path).problems)
    assert "damaged" not in whole and "not what" not in whole
    path = tmp_path / name
    path.write_text(
        path.read_text().replace(digit, digit.replace("8125", "9125").replace("3", "2"))
    )
    assert re.search(said, " ".join(read_run(tmp_path).problems))


def test_a_finished_run_without_its_result_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text(seal_yaml("optim:\n  epochs: 3\n"))
    run.metrics.write_text(seal_line({"kind": "epoch", "epoch": 3, "step": 3, "loss": 1.5}))
    assert re.search("No verdict: result.json is missing", " ".join(read_run(tmp_path).problems))


def test_a_split_that_was_edited_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = Listing(str(tmp_path), [f"{n}.png" for n in range(8)], [0, 1] * 4, ["a", "b"], None)
    path = tmp_path / "split.csv"
    divide(listing, DivisionSpec(holdout=0.5)).write(path)
    say_once.cache_clear()
    divide(listing, DivisionSpec(file=str(path)))
    assert "split.csv" not in capsys.readouterr().err
    path.write_text(path.read_text().replace("train", "test", 1))
    divide(listing, DivisionSpec(file=str(path)))
    assert "note: " in capsys.readouterr().err


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> survey._Records:
    """What a start found of a collection, in its file."""
    monkeypatch.setattr(survey, "user_cache", lambda: tmp_path)
    say_once.cache_clear()
    records = survey._Records(str(tmp_path / "images"))
    records._keep({"a.png": [1, 2, 3, 4095]})
    return records


def found_again(kept: survey._Records) -> dict[str, Any]:
    return survey._Records(str(kept.path.parents[1] / "images")).known


def test_the_survey_of_a_collection_is_made_again(
    kept: survey._Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found_again(kept) == {"a.png": [1, 2, 3, 4095]}
    kept.path.write_text(kept.path.read_text().replace("4095", "4094"))
    assert found_again(kept) == {}
    assert "reading the headers of the images again" in capsys.readouterr().err


def test_the_survey_of_an_earlier_version_is_not_called_damaged(
    kept: survey._Records, capsys: pytest.CaptureFixture[str]
) -> None:
    text = kept.path.read_text().partition("\n")[0]
    kept.path.write_text(text)  # as versions before the checksum wrote it
    assert found_again(kept) == {}
    assert "damaged" not in capsys.readouterr().err
    kept.path.write_text(text[:-4])
    assert found_again(kept) == {}
    assert "damaged" in capsys.readouterr().err
