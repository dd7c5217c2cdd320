"""Rows of a study, averaged for the comparison page."""

import json
from pathlib import Path

import pytest

from convit_ssl.analysis.study_points import read_study
from convit_ssl.errors import UserError


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


def test_rows_of_different_things_are_not_averaged(tmp_path: Path) -> None:
    rows = [
        {"name": "convit_nano", "accuracy": value, "seed": seed, "fingerprint": {"images": images}}
        for seed, (value, images) in enumerate(((0.5, "a"), (0.7, "b")))
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"study": "ablation", "results": rows}))
    with pytest.raises(UserError, match="fingerprints differ"):
        read_study([file])


def test_rows_of_probes_are_no_study(tmp_path: Path) -> None:
    file = tmp_path / "knn.json"
    file.write_text(json.dumps({"results": [{"kind": "knn", "name": "pixels", "accuracy": 0.5}]}))
    with pytest.raises(UserError, match="convit-ssl results"):
        read_study([file])
