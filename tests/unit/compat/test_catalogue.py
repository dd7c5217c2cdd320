"""docs/COMPAT.md, the docstrings, the modules and the tests agree."""

import importlib.util
import re
from pathlib import Path

import pytest

from convit_ssl.compat.catalogue import ShimNote, markdown_table, shim_notes

ROOT = Path(__file__).parents[3]
SUPPORT = {"__init__", "__main__", "_hooks", "_patch", "catalogue", "environment"}
NOTES = {note.name: note for note in shim_notes()}


def test_the_page_holds_the_table() -> None:
    page = (ROOT / "docs" / "COMPAT.md").read_text(encoding="utf-8")
    assert markdown_table() in page, (
        "docs/COMPAT.md is behind the shims' docstrings: "
        "put the output of `python -m convit_ssl.compat` in place of its table"
    )


def test_every_module_is_registered() -> None:
    modules = {path.stem for path in (ROOT / "convit_ssl" / "compat").glob("*.py")}
    assert modules - SUPPORT == set(NOTES)


@pytest.mark.parametrize("name", NOTES)
def test_every_shim_has_its_test(name: str) -> None:
    assert Path(__file__).with_name(f"test_{name}.py").is_file()


@pytest.mark.parametrize("note", NOTES.values(), ids=lambda note: note.name)
def test_upstream_places_exist(note: ShimNote) -> None:
    """Each ``file.py:line`` lies in the installed version of that package."""
    places = re.findall(r"(\w+)/([\w/]+\.py):(\d+)", note.upstream)
    for package, path, line in places:
        if package == "tools":  # VISSL's, which our own folder of that name hides
            continue
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        file = Path(spec.submodule_search_locations[0]) / path
        assert len(file.read_text(encoding="utf-8").splitlines()) >= int(line), file
