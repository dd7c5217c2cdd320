"""results/: a folder each, with a page, an index, and no large file."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np

from convit_ssl.sealed import unseal

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "file_results.py"))


def test_results_are_filed() -> None:
    assert TOOL["problems"]() == [], "run make results"


def test_files_beside_the_folders_get_one_each(tmp_path: Path) -> None:
    (tmp_path / "a_2026-01-02.json").write_text('{"kind": "demo", "commit": "abc"}')
    (tmp_path / "a_2026-01-02.md").write_text(
        "# Title\n\nSuperseded by [b](b.md), see [all](a_2026-01-02.json), [why](../docs/X.md).\n"
    )
    TOOL["move_into_folders"](tmp_path)
    folder = tmp_path / "a_2026-01-02"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "result.json"]
    page = (folder / "README.md").read_text()
    assert "[b](../b/README.md)" in page and "[all](result.json)" in page
    assert "[why](../../docs/X.md)" in page
    (row,) = TOOL["entries"](tmp_path)
    assert (row["title"], row["date"], row["superseded"]) == ("Title", "2026-01-02", "yes")
    assert TOOL["problems"](tmp_path) == ["INDEX.csv is out of date"]
    (tmp_path / "INDEX.csv").write_text(TOOL["index"](tmp_path))
    assert TOOL["problems"](tmp_path) == []


def test_a_folder_without_its_figures_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_2026-01-02").mkdir()
    (tmp_path / "a_2026-01-02" / "README.md").write_text("# Title\n")
    (tmp_path / "INDEX.csv").write_text(TOOL["index"](tmp_path))
    assert TOOL["problems"](tmp_path) == ["a_2026-01-02 has no result.json"]


def test_a_large_result_keeps_every_number(tmp_path: Path) -> None:
    confusion = np.arange(40_000).reshape(200, 200) % 7
    heads = [{"learning_rate": 0.1 * i, "held_out": 0.5} for i in range(2_000)]
    rows = [{"accuracy": 0.5, "confusion": confusion.tolist(), "sweep": heads}]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"results": rows}, indent=1))
    text = TOOL["compact"](path)
    assert len(text) < 1_000
    (row,) = json.loads(text)["results"]
    assert row["accuracy"] == 0.5
    arrays = np.load(tmp_path / "arrays.npz")
    assert (arrays[row["confusion"]["array"]] == confusion).all()
    packed = TOOL["gzip"].decompress((tmp_path / "lists.json.gz").read_bytes())
    assert json.loads(packed)[row["sweep"]["list"]] == heads


def test_small_arrays_take_a_line(tmp_path: Path) -> None:
    value = {"rows": [{"name": "a", "bounds": [1, 2]}, {"name": "b"}], "empty": {}, "none": []}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(value, indent=1))
    text = TOOL["compact"](path)
    assert unseal(json.loads(text), "") == value
    assert '{"name": "a", "bounds": [1, 2]}' in text
