"""Rows of a study's probes answer for the weights they were measured on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convit_ssl.cli.study import probes as study_probes


def test_other_weights_of_the_same_name_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(source: Any, asked: Any) -> dict[str, Any]:
        measured.append("x")
        return {"accuracy": len(measured) / 10, "tested": None}

    command = SimpleNamespace(
        add_arguments=study_probes.PROBES["knn"].add_arguments, measure_source=measure
    )
    monkeypatch.setattr(study_probes, "PROBES", {"knn": command})
    monkeypatch.setattr(study_probes.probe_sources, "open_source", lambda asked, which: None)
    monkeypatch.setattr(study_probes.probe_division, "prepare", lambda asked: None)
    monkeypatch.setattr(study_probes, "whole", lambda args: None)
    args = argparse.Namespace(data="digits", data_dir=None, set=[], probe_epochs=3)
    weights, row = tmp_path / "w.pth", tmp_path / "row.json"

    def ask(seed: int = 0) -> float:
        found = study_probes._once(row, "knn", args, str(weights), seed, "")
        return float(found["accuracy"])

    weights.write_bytes(b"one")
    assert ask() == ask() == 0.1
    weights.write_bytes(b"two")
    assert ask() == ask() == 0.2
    assert ask(seed=1) == 0.3
    row.write_text(json.dumps({"accuracy": 0.9}))  # of a version that did not keep the question
    assert ask(seed=1) == 0.4
    row.write_text("{")
    assert ask(seed=1) == 0.5
