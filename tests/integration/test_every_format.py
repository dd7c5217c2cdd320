"""Every image format through the commands, and the test files of the libraries themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.integration.every_format import walk
from tests.integration.format_files import FORMATS, Format
from tests.integration.library_files import LIBRARIES, compare_library

# A pair differs from other NIfTI only in how it is opened, which test_volumes.py covers.
WALKED = [one for one in FORMATS if "pair" not in one.name]


@pytest.mark.slow
@pytest.mark.parametrize("one", WALKED, ids=lambda one: one.name.split(" (")[0])
def test_from_files_to_a_report(one: Format, tmp_path: Path) -> None:
    pytest.importorskip(one.package)
    row = walk(one, tmp_path)
    assert row["images"] >= 24 and row["equal"] >= 18
    assert row["export_difference"] < 1e-4


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_libraries_own_files(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    row = compare_library(name)
    assert not row["other"], row
    assert row["files"] > 3
