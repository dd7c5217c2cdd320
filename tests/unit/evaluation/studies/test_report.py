"""The report of a study adds up, and says where each row comes from."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from convit_ssl.evaluation.studies.design import (
    Study,
    ablation,
)
from convit_ssl.evaluation.studies.report import (
    markdown,
    progress_table,
    study_rows,
    summarise,
    write_study,
)
from convit_ssl.evaluation.studies.runner import State, run_study
from tests.unit.evaluation.studies.fake_runs import SETTINGS, fake, small_study


def finished(tmp_path: Path, study: Study) -> list[State]:
    states = [State(run, tmp_path / run.name) for run in study.runs]
    for state in states:
        state.status = "done"
        state.result = {"accuracy": 0.5 + 0.1 * state.run.seed + 0.1 * state.run.fraction}
    return states


def test_report_of_a_study(tmp_path: Path) -> None:
    study = small_study()
    states = finished(tmp_path, study)
    summary = write_study(study, states, tmp_path)
    found = {(row["name"], row["fraction"]): row for row in summary}
    row = found["convit_nano", 0.5]
    assert row["mean"] == pytest.approx(0.6)
    assert row["spread"] == pytest.approx(0.1 / 2**0.5)
    assert row["paper"] == 0.782
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["results"]) == 8
    assert {"commit", "versions", "hardware", "settings"} <= set(content)
    text = (tmp_path / "results.md").read_text()
    assert "| convit_nano | 60.0 ± 7.1 | 65.0 ± 7.1 |" in text
    with Image.open(tmp_path / "sample_efficiency.png") as image:
        assert image.width > image.height


def test_report_of_an_ablation(tmp_path: Path) -> None:
    study = ablation("nano", SETTINGS, ["table3"], depth=6)
    write_study(study, finished(tmp_path, study), tmp_path)
    with Image.open(tmp_path / "ablation.png") as image:
        assert min(image.size) > 300
    study = ablation("nano", SETTINGS, ["locality"], depth=6)
    write_study(study, finished(tmp_path, study), tmp_path)


def test_table_of_an_unfinished_study(tmp_path: Path) -> None:
    study = small_study()
    states = finished(tmp_path, study)
    states[-1].status, states[-1].message = "failed", "no power"
    states[-2].status = "running"
    assert len(study_rows(states)) == 6
    assert summarise(study, study_rows(states))[-1]["count"] == 1
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(progress_table(study, states))
    text = console.export_text()
    assert "60.0 ± 7.1" in text
    assert "1/2 0 %" in text
    assert "1 failed" in text
    assert "| deit_nano | 60.0 ± 7.1 | 60.0 |" in markdown(
        study, summarise(study, study_rows(states))
    )


def test_every_row_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "convit_ssl/cli/main.py",
        "study",
        "ablation",
        "--note",
        "Expected ...",
        "--seeds",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", words)
    states = run_study(small_study(), tmp_path, 4, command=fake(0.5), interval=0.02)
    write_study(small_study(), states, tmp_path, note="Expected: ConViT ahead.")
    content = json.loads((tmp_path / "results.json").read_text())
    for row in content["results"]:
        assert {
            "commit",
            "settings_hash",
            "data",
            "seed",
            "hardware",
            "time",
            "images_per_s",
        } <= set(row)
        assert row["data"] == {"digest": "0f"}
    page = (tmp_path / "results.md").read_text()
    assert "Expected: ConViT ahead." in page
    assert "| convit_nano, 50 % | 0 | 50.00 |" in page
    assert "8 of 8 done" in page
    assert "- Command: `convit-ssl study ablation --seeds 2`" in page
