"""The page of a pretraining study: every probe counts where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.studies.design import Settings, Study, pretraining
from convit_ssl.evaluation.studies.pretraining import summarise_probes, write_pretraining
from convit_ssl.evaluation.studies.runner import State


def probe(
    kind: str, features: str, trunk: str | None, seed: int, accuracy: float, data: str = "d"
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": kind,
        "name": f"{trunk}, {features}",
        "features": features,
        "trunk": trunk,
        "seed": seed,
        "accuracy": accuracy,
        "seconds": 1.0,
        "fingerprint": {"train_data": data},
        "settings": {},
    }
    if kind == "knn":
        row["majority_5nn"] = {"accuracy": accuracy - 0.1}
    return row


@pytest.fixture
def study() -> Study:
    settings = Settings("digits", epochs=2, batch_size=16)
    return pretraining(["convit_nano", "deit_nano"], ["dino"], settings, [0, 1])


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    found = [probe(kind, "raw pixels", None, 0, 0.8) for kind in ("knn", "linear")]
    for trunk, better in (("convit_nano", 0.05), ("deit_nano", 0.0)):
        for seed in (0, 1):
            found += [
                probe("knn", "untrained", trunk, seed, 0.6 + better),
                probe("knn", "dino", trunk, seed, 0.85 + better + 0.02 * seed),
                probe("linear", "dino", trunk, seed, 0.9),
            ]
    return found


def test_page_of_a_pretraining_study(
    study: Study, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    states = [State(run, tmp_path / run.name, "done") for run in study.runs]
    for state in states:
        state.result = {"seconds": 30.0, "accuracy": None}
    write_pretraining(study, states, rows, tmp_path, "Expected: dino ahead of pixels.")
    page = (tmp_path / "results.md").read_text()
    assert "Expected: dino ahead of pixels." in page
    assert "| raw pixels | 80.0 | 70.0 | 80.0 | 80.0 | 70.0 | 80.0 |" in page
    ours = "91.0 ± 1.4 | 81.0 ± 1.4 | 90.0 ± 0.0"
    assert f"| dino | {ours} | 86.0 ± 1.4 | 76.0 ± 1.4 | 90.0 ± 0.0 |" in page
    assert "| untrained | 65.0 ± 0.0 | 55.0 ± 0.0 |  | 60.0 ± 0.0" in page
    assert "8 of 8 done, 30 s each in the median" in page
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["results"]) == len(rows)
    assert len(content["runs"]) == 8
    assert content["runs"][0]["overrides"][0] == "config=convit_dino"


def test_probes_of_other_images_are_not_averaged(rows: list[dict[str, Any]]) -> None:
    rows.append(probe("knn", "dino", "convit_nano", 2, 0.9, data="other"))
    with pytest.raises(UserError, match=r"fingerprint \(train_data\) differ"):
        summarise_probes(rows)
