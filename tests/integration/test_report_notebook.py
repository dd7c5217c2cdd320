"""The notebooks of docs/ run from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_runs_and_is_committed_without_outputs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"cell {number} was committed with its output"
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
    CHECKS[path.stem](namespace, tmp_path)


def check_locality(namespace, folder):
    assert namespace["found"].mixed.shape == (6, 4)
    assert not list(folder.iterdir())


def check_from_folder_to_report(namespace, folder):
    assert namespace["run"].finished
    assert len(namespace["found"]) == 120
    assert set(namespace["result"].references) == {"raw pixels", "untrained network"}
    assert namespace["result"].verdict is not None
    assert namespace["page"].is_file()
    assert (folder / "exported" / "convit_nano_dino.safetensors").is_file()
    assert namespace["model"].config.depth == 6


def check_features_in_sklearn(namespace, folder):
    assert namespace["features"].shape == (200, 128)
    assert 0.4 < namespace["accuracy"] <= 1
    assert len(namespace["doubtful"]) == 5


CHECKS = {
    "features_in_sklearn": check_features_in_sklearn,
    "locality": check_locality,
    "from_folder_to_report": check_from_folder_to_report,
}
