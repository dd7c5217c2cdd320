"""README and docs show the figures of results/, and README stays short."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "make_figures"))


@pytest.mark.parametrize("page", TOOL["pages"](), ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_the_files(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == TOOL["filled"](page), "run make readme"


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = tmp_path / "README.md"
    changed, times = re.subn(r"(\| elpv, [^|]*\| )\d+\.\d", r"\g<1>99.9", text)
    assert times == 1
    page.write_text(changed)
    assert "99.9" not in TOOL["filled"](page)


def test_readme_has_at_most_a_hundred_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_evidence_is_a_line_for_each_collection() -> None:
    def row(name: str, judged: str, mean: float, minutes: float, sd: float | None) -> Any:
        interval = None if sd is None else [mean - 0.01, mean + 0.01]
        figures = {"accuracy": {"mean": mean, "sd": sd, "interval_95": interval}}
        return {
            "row": name,
            "judged_by": judged,
            "probes": {judged: figures},
            "core_minutes": minutes,
        }

    result = {
        "data": "textures",
        "images": {"train": 3920, "test": 980},
        "metric": "accuracy",
        "chosen_method": "simclr",
        "rows": [
            row("raw pixels", "linear", 0.2, 0.0, None),
            row("timm:net, frozen", "linear", 0.6, 0.0, None),
            row("untrained", "linear", 0.5, 0.0, 0.01),
            row("simclr", "linear", 0.7, 3.0, 0.01),
            row("pretrained (simclr), fine-tuned", "classifier", 0.75, 4.5, 0.01),
        ],
    }
    lines = TOOL["evidence"]([result]).splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        "| textures, 3,920 images, accuracy | 20.0 | 60.0 | 50.0 (49.0 to 51.0) "
        "| not measured | not measured | simclr 70.0 (69.0 to 71.0), 3.0 core-min "
        "| 75.0 (74.0 to 76.0), 4.5 core-min |"
    )


def test_probes_are_a_line_for_each_row() -> None:
    def figures(mean: float, sd: float | None) -> dict[str, Any]:
        interval = None if sd is None else [mean - 0.01, mean + 0.01]
        return {"balanced_accuracy": {"mean": mean, "sd": sd, "interval_95": interval}}

    result = {
        "data": "drawings",
        "metric": "balanced_accuracy",
        "rows": [
            {"row": "raw pixels", "probes": {"knn": figures(0.2, None)}, "core_minutes": 0.0},
            {
                "row": "diet",
                "probes": {"knn": figures(0.4, 0.01), "linear": figures(0.3, 0.01)},
                "core_minutes": 5.04,
            },
        ],
    }
    lines = TOOL["probes"]([result]).splitlines()
    assert TOOL["probes"]([result, result]).splitlines() == lines
    assert lines[0] == "| balanced accuracy in % | kNN | linear probe | core-minutes |"
    assert lines[2] == "| drawings, raw pixels | 20.0 | not measured | 0.0 |"
    assert lines[3] == "| drawings, diet | 40.0 (39.0 to 41.0) | 30.0 (29.0 to 31.0) | 5.0 |"


def test_differences_are_a_line_for_each_method() -> None:
    def found(value: float) -> dict[str, Any]:
        return {"difference": value, "interval_95": [value - 0.02, value + 0.02]}

    others = ("raw pixels", "untrained", "labels alone, ConViT", "labels alone, ResNet-18")
    result = {
        "data": "textures",
        "methods": ["simclr"],
        "rows": [{"row": "simclr", "seeds": [0, 1, 2]}],
        "differences": {"simclr": {name: found(0.1 * i) for i, name in enumerate(others)}},
    }
    assert TOOL["differences"]([result]).splitlines()[2] == (
        "| textures, simclr | 3 | +0.0 (-2.0 to +2.0) | +10.0 (+8.0 to +12.0) "
        "| +20.0 (+18.0 to +22.0) | +30.0 (+28.0 to +32.0) |"
    )


@pytest.mark.parametrize(
    ("runs", "passed", "words"),
    [
        (30, ["rankme"], "**Passed: RankMe.**"),
        (30, [], "**None passed.**"),
        (29, ["rankme"], "stopped early (29 on a, 29 on b, 29 on c), so no score has passed"),
    ],
)
def test_a_study_of_scores_says_what_passed(runs: int, passed: list[str], words: str) -> None:
    one = {"rho": 0.5, "low": 0.25, "high": 0.75, "networks": runs}
    result = {
        "passed": passed,
        "collections": {name: {"runs": [{}] * runs} for name in "abc"},
        "correlations": {"knn": {n: dict.fromkeys("abc", one) for n in ("rankme", "epochs")}},
    }
    lines = TOOL["label_free_study"]([result]).splitlines()
    assert words in lines[0] and len(lines) == 5
    cell = "+0.50 (+0.25 to +0.75)"
    assert lines[4] == f"| RankMe | {cell} | {cell} | {cell} | +0.50 |"
