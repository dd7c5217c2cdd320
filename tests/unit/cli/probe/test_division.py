"""knn and linear on images without a val folder: divisions, groups, references, a verdict."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.cli import knn_command
from convit_ssl.cli.main import run_command
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.errors import UserError

TRUNK = ["random:convit_nano", "--img-size", "16", "--device", "cpu", "--workers", "0"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Scans of 12 patients in a folder each, sick or well by a table; sick ones are brighter."""
    draw = np.random.default_rng(0)
    rows = ["file,state,patient"]
    root = tmp_path / "scans"
    for patient in range(12):
        (root / f"p{patient:02d}").mkdir(parents=True)
        for number in range(8):
            sick = (number + patient) % 2
            pixels = draw.integers(60, 150, (16, 16)) + 50 * sick
            name = f"p{patient:02d}/{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append(f"{name},{('well', 'sick')[sick]},P{patient}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def options(scans: Path) -> list[str]:
    table = f"{scans / 'table.csv'}:file,state,patient"
    words = ["--data-dir", str(scans / "scans"), "--labels", table, "--group-by", "column:patient"]
    return [*words, "--cache", str(scans / "cache"), "--json", str(scans / "out.json")]


def test_from_a_table_to_a_grouped_verdict(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = scans / "split.csv"
    words = [*TRUNK, *options(scans), "--holdout", "0.4", "--references", "-k", "5"]
    assert run_command("knn", [*words, "--write-split", str(split)]) == 0
    said = capsys.readouterr().out
    found = json.loads((scans / "out.json").read_text())
    assert [row["name"] for row in found["results"]] == ["raw pixels", TRUNK[0]]
    assert found["not_measured"][0]["name"] == "frozen network (not measured)"
    assert "--reference timm:vit_small_patch14_dinov2.lvd142m=FILE" in said
    verdict = found["verdict"]
    assert (
        "groups" in verdict["tested"]
        and verdict["labels"] == found["results"][0]["images"]["train"]
    )
    assert verdict["text"] in said
    rows = [line.split(",") for line in split.read_text().splitlines()[1:]]
    parts: dict[str, set[str]] = {}
    for _, part, _, group in rows:
        parts.setdefault(group, set()).add(part)
    assert len(parts) == 12 and all(len(of_group) == 1 for of_group in parts.values())
    # The same division again, from the file: the same figures.
    before = found["results"][1]
    again = [*TRUNK, *options(scans)[:2], "--cache", str(scans / "cache"), "-k", "5"]
    again += ["--json", str(scans / "again.json"), "--split", str(split)]
    assert run_command("knn", again) == 0
    after = json.loads((scans / "again.json").read_text())["results"][0]
    assert after["fingerprint"]["split"] == before["fingerprint"]["split"]
    assert after["accuracy"] == before["accuracy"]


def test_every_image_is_tested_once_by_folds(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRUNK, *options(scans), "--folds", "3", "--no-logistic", "--epochs", "1"]
    assert run_command("linear", [*words, "--references"]) == 0
    found = json.loads((scans / "out.json").read_text())
    assert [row["total"] for row in found["results"]] == [96, 96]
    assert found["verdict"]["tested"] == "96 images in 12 groups, 3 folds"
    assert "96 images in 12 groups, each tested once in 3 folds" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("words", [[], ["--group-by", "folder:1"]])
def test_folds_are_suggested_where_they_can_be_used(scans: Path, words: list[str]) -> None:
    """A study of baselines tests on one part of the images."""
    parser = argparse.ArgumentParser()
    knn_command.add_arguments(parser)
    data = ["--data-dir", str(scans / "scans"), *words]
    for folds in (True, False):
        with pytest.raises(UserError, match="--holdout") as caught:
            probe_division.prepare(parser.parse_args(["nowhere.torch", *data]), folds=folds)
        assert ("--folds" in str(caught.value)) is folds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "has no val/ folder, so there is nothing to test on. Hold out part"),
        (["--holdout", "0.2", "--group-by", "folder:1"], "say where the labels are"),
        (["--labels", "name:(x)_"], "give no image"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_read(
    scans: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("convit_ssl.evaluation.features.extraction.extract_features", read)
    monkeypatch.setattr("convit_ssl.cli.probe.report.open_source", read)
    words = words if "--labels" not in words else [*words, "--holdout", "0.2"]
    asked = ["nowhere.torch", "--data-dir", str(scans / "scans"), *words]
    for command in ("knn", "linear"):
        assert run_command(command, asked) == 2
        assert message in capsys.readouterr().err
