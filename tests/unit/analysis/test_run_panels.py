"""The report says first what a reader wants to know: the verdict and the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.metrics import Metrics
from convit_ssl.analysis.run_panels import data_panel, read_check, verdict_panel
from convit_ssl.analysis.runs import Run, read_run
from convit_ssl.cli.main import run_command
from convit_ssl.errors import UserError


def run(folder: Path, **config: Any) -> Run:
    return Run("mine", folder, config, Metrics(), [], None)


def test_the_verdict_in_percentage_points(tmp_path: Path) -> None:
    pixels = {"difference": -0.248, "interval_95": [-0.457, -0.143], "units": 3}
    verdict = {
        "outcome": "not better", "text": "not better than raw pixels", "metric": "accuracy",
        "probe": "kNN", "against": {"raw pixels": pixels}, "labels": 315,
        "tested": "105 images", "advice": ["train longer"],
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps({"verdict": verdict}))
    found = verdict_panel(run(tmp_path))
    assert found is not None and found["metric"] == "kNN accuracy"
    assert found["against"] == [
        {"name": "raw pixels", "difference": -24.8, "interval": [-45.7, -14.3]}
    ]
    assert found["advice"] == ["train longer"]


def test_damaged_results_have_no_verdict(tmp_path: Path) -> None:
    assert verdict_panel(run(tmp_path)) is None
    for text in ("", "[]", '{"verdict": 3}', '{"verdict": {"text": 1}}'):
        (tmp_path / "result.json").write_text(text)
        assert verdict_panel(run(tmp_path)) is None


def test_images_with_full_paths_warnings_and_unreadable_files(tmp_path: Path) -> None:
    facts = {"name": "folder", "folder": "/images", "images": 1200, "native_size": [48, 64]}
    rows = [{"path": f"/images/{i}.png", "reason": "the file is empty"} for i in (1, 2, 1)]
    (tmp_path / "unreadable.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{cut")
    lines = [
        "2026-11-29 20:00:00,000 WARNING convit_ssl.data: 3 images would be nearly black",
        "2026-11-29 20:00:01,000 WARNING convit_ssl.data: 3 images would be nearly black",
        "2026-11-29 20:00:02,000 WARNING convit_ssl.data: unreadable image: /images/1.png",
        "2026-11-29 20:00:03,000 WARNING root: something else",
    ]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    found = data_panel(run(tmp_path, facts=facts))
    assert found["facts"]["Folder"] == "/images"
    assert found["facts"]["Training images"] == "1,200"
    assert found["facts"]["Size"] == "64 x 48 px"
    assert found["facts"]["Run folder"] == str(tmp_path.resolve())
    assert found["unreadable"] == [[f"/images/{i}.png", "the file is empty"] for i in (1, 2)]
    assert found["warnings"] == ["3 images would be nearly black"]


def test_what_a_race_chose(tmp_path: Path) -> None:
    decision = {"method": "vicreg", "reason": "vicreg: 61.2; simclr 55.0"}
    found = data_panel(run(tmp_path, derived={"race": decision}))
    assert found["facts"]["Chosen by a race"] == decision["reason"]
    for damaged in ({"race": 3}, {"race": {"reason": 3}}, 3):
        assert "Chosen by a race" not in data_panel(run(tmp_path, derived=damaged))["facts"]


def test_a_run_without_files_has_empty_panels(tmp_path: Path) -> None:
    found = data_panel(run(tmp_path))
    assert found["unreadable"] == [] and found["warnings"] == []


def test_what_the_check_found(tmp_path: Path) -> None:
    """The table of a real check, of a folder with a copy across parts and a black image."""
    draw = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 3)):
        folder = tmp_path / "images" / part / "cells"
        folder.mkdir(parents=True)
        for index in range(number):
            pixels = draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{part}, {index}.png")
    black = Image.new("RGB", (40, 40))
    black.save(tmp_path / "images/train/cells/black.png")
    copied = (tmp_path / "images/train/cells/train, 0.png").read_bytes()
    (tmp_path / "images/val/cells/copy.png").write_bytes(copied)
    assert run_command("check", [str(tmp_path / "images"), "--out", str(tmp_path / "check")]) == 1
    found = read_check(tmp_path / "check" / "check.csv")
    assert found["counts"] == ["1 pair across parts", "1 black"] and found["count"] == 2
    (leak, dark) = found["rows"]
    assert leak[0] == "leak" and {Path(leak[1]).name, Path(leak[2]).name} == {
        "train, 0.png", "copy.png",
    }  # fmt: skip
    assert dark[:3] == ["black", "train/cells/black.png", ""]


@pytest.mark.parametrize("text", ["", "file,label\na,b\n", "kind\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match="not a table that convit-ssl check wrote"):
        read_check(tmp_path / "table.csv")


def test_a_configuration_with_numbers_as_keys(tmp_path: Path) -> None:
    """Found by fuzzing: valid YAML, whose keys need not be names."""
    (tmp_path / "config.yaml").write_text("0: [a]\noptim: {epochs: 2}\n")
    assert read_run(tmp_path).config == {"0": ["a"], "optim": {"epochs": 2}}
