"""Rows of a study, averaged for the comparison page."""

import json
from pathlib import Path

import pytest

from convit_ssl.analysis.study_points import read_study


def test_seeds_are_averaged_and_networks_have_their_size(tmp_path: Path) -> None:
    rows = [
        {"name": trunk, "trunk": trunk, "fraction": 0.1, "accuracy": value, "seed": seed}
        for trunk in ("convit_nano", "deit_nano", "resnet50", "something")
        for seed, value in enumerate((0.5, 0.7))
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"study": "sample-efficiency", "results": rows}))
    points, problems = read_study([file])
    assert problems == []
    sizes = {point.model: point.parameters for point in points}
    assert sizes["resnet50"] == 23_508_032
    assert sizes["something"] is None
    assert sizes["deit_nano"] is not None
    assert sizes["convit_nano"] is not None
    assert sizes["deit_nano"] < sizes["convit_nano"] < 2e6
    for point in points:
        assert (point.accuracy, point.seeds) == (pytest.approx(0.6), 2)
        assert point.spread == pytest.approx(0.1414, abs=1e-4)
