"""README and docs show the figures of results/, and README stays short."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "make_figures.py"))


@pytest.mark.parametrize("page", TOOL["pages"](), ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_the_files(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == TOOL["filled"](page), "run make readme"


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = tmp_path / "README.md"
    page.write_text(text.replace("| untrained network | 81.7 %", "| untrained network | 91.7 %"))
    if page.read_text() == text:
        pytest.skip("the demo was recorded anew")
    assert "91.7 %" not in TOOL["filled"](page)


def test_readme_has_at_most_a_hundred_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
