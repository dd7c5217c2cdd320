"""Intervals, rows that are averaged or refused, and pictures."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.accuracy import Accuracy, confusion_matrix, per_class_accuracy
from convit_ssl.evaluation.pictures import draw_confusion
from convit_ssl.evaluation.results import (
    average,
    commit,
    hardware,
    read_rows,
    result_row,
    results_table,
    write_json,
)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_is_wilsons(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(0.95, "wilson")
    low, high = Accuracy(*counts).interval
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_accuracy_reads_well() -> None:
    assert str(Accuracy(797, 797)) == "100.0 % [99.5, 100.0]"


def test_confusion_counts_true_rows_and_predicted_columns() -> None:
    found = confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert per_class_accuracy(found) == [0.5, 1.0, None]


def row(accuracy: float, seed: int, **changes: object) -> dict[str, object]:
    settings = {"data": "digits", "subset": "fraction=0.1"}
    marks = {"val_data": "ab", "transform": "cd"}
    made = result_row("knn", f"run {seed}", {"accuracy": accuracy}, settings, marks, seed=seed)
    return {**made, **changes}


def test_rows_that_differ_in_the_seed_are_averaged() -> None:
    found = average([row(0.5, 0), row(0.7, 1), row(0.6, 2)])
    assert found["mean"] == pytest.approx(0.6)
    assert found["spread"] == pytest.approx(0.1)
    assert found["seeds"] == [0, 1, 2]
    assert average([row(0.5, 0)])["spread"] is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fingerprint": {"val_data": "xx", "transform": "cd"}}, r"fingerprint \(val_data\)"),
        ({"settings": {"data": "digits"}}, r"settings \(subset\)"),
        ({"kind": "linear"}, "kind"),
    ],
)
def test_rows_of_different_things_are_not_averaged(changes: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"'run 0' and 'run 1' are not averaged: their {named}"):
        average([row(0.5, 0), row(0.6, 1, **changes)])


def test_rows_say_what_they_depend_on(tmp_path: Path) -> None:
    write_json({"results": [row(0.5, 0), row(0.6, 1)]}, tmp_path / "deep" / "r.json")
    write_json([row(0.7, 2)], tmp_path / "list.json")
    rows = read_rows([tmp_path / "deep" / "r.json", tmp_path / "list.json"])
    assert [r["accuracy"] for r in rows] == [0.5, 0.6, 0.7]
    assert {"commit", "versions", "hardware", "time", "settings_hash", "command"} <= set(rows[0])
    assert "torch" in rows[0]["versions"]
    assert rows[0]["hardware"]["cores"] >= 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.json"]
    (tmp_path / "bad.json").write_text(json.dumps({"loss": 3}))
    with pytest.raises(UserError, match="holds no results"):
        read_rows([tmp_path / "bad.json"])
    with pytest.raises(UserError, match=r"cannot read .*absent\.json: No such file"):
        read_rows([tmp_path / "absent.json"])
    for text in ("3", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="holds no results"):
            read_rows([tmp_path / "bad.json"])


def test_a_run_is_read_by_its_folder(tmp_path: Path) -> None:
    write_json(row(0.5, 0), tmp_path / "run" / "result.json")
    assert [r["accuracy"] for r in read_rows([tmp_path / "run"])] == [0.5]
    write_json({"accuracy": None}, tmp_path / "unlabelled" / "result.json")
    with pytest.raises(UserError, match=r"has no accuracy.*convit-ssl knn"):
        read_rows([tmp_path / "unlabelled"])


def test_commit_is_none_outside_of_git(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    assert "cpu" in hardware()


def test_commit_tells_changes_of_the_source_from_new_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    source, figures = tmp_path / "source.py", tmp_path / "results" / "a.json"
    figures.parent.mkdir()
    for file in (source, figures):
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    clean = commit(tmp_path)
    assert clean is not None and len(clean) == 40
    figures.write_text("2")
    assert commit(tmp_path) == clean
    source.write_text("2")
    assert commit(tmp_path) == f"{clean}-dirty"
    assert commit(figures.parent) is None, "a package within somebody else's repository"


def test_results_do_not_say_whose_machine_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    known = {
        "folder": "/home/ada/.cache/digits",
        "also": ["x=/home/ada", "/home/adam", "/a/home/ada"],
    }
    row_ = result_row("knn", "n", {}, {}, {}, provenance=known, seed=0)
    assert row_["provenance"] == {
        "folder": "~/.cache/digits", "also": ["x=~", "/home/adam", "/a/home/ada"]
    }  # fmt: skip
    assert row_["seed"] == 0


def test_table_has_a_line_per_result() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    made = [row(0.5, 0, interval_95=[0.4, 0.6], details={"k=10": "49.0"}), row(0.6, 1)]
    console.print(results_table(made, "kNN"))
    text = console.export_text()
    assert "50.0 %" in text
    assert "40.0 - 60.0" in text
    assert "49.0" in text


def test_names_in_a_narrow_table_break_between_words() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    details = {"k=10": "60.0", "k=120": "63.3", "plain 5-NN": "66.7"}
    shares = {"balanced_accuracy": 0.5, "auc": 0.6, "interval_95": [0.4, 0.7]}
    names = ("untrained network", "convit_nano simclr epoch 6, student")
    made = [row(0.6, 0, name=name, details=details, **shares) for name in names]
    console.print(results_table(made, "kNN"))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("convit_nano" in line for line in lines)
    assert any("untrained" in line for line in lines)


@pytest.mark.parametrize("classes", [3, 25, 70])
def test_confusion_picture(classes: int, tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))
    draw_confusion(counts, [f"class {i}" for i in range(classes)], tmp_path / "c.png", "title")
    with Image.open(tmp_path / "c.png") as image:
        assert min(image.size) > 300
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]
