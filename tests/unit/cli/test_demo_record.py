"""The demo's result file."""

import json
from pathlib import Path
from typing import Any

from convit_ssl.cli.demo_record import write


def row(name: str, accuracy: float) -> dict[str, Any]:
    details = {"k=10": "97.6", "plain 5-NN": "97.9"}
    return {
        "name": name, "accuracy": accuracy, "interval_95": [0.95, 0.98], "details": details,
    }  # fmt: skip


def test_figures_with_all_that_they_depend_on(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"epochs": 50}))
    results = {
        "knn": [row("raw pixels", 0.967), row("ours", 0.971)],
        "linear": [row("raw pixels", 0.956), row("ours", 0.965)],
    }
    stem = tmp_path / "demo"
    write(str(stem), results, tmp_path, 201.4)
    content = json.loads((stem / "result.json").read_text())
    assert content["results"] == results and content["run"] == {"epochs": 50}
    assert {"command", "commit", "versions", "hardware", "date"} <= set(content)
    text = (stem / "README.md").read_text()
    assert "201 s on" in text
    assert "| ours | 97.1 (95.0 - 98.0) | 97.6 | 97.9 | 96.5 (95.0 - 98.0) |" in text
