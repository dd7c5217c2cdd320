"""The names in a run folder, and the one reader of its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convit_ssl.engines.checkpoints.run_folder import forget
from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder

ROOT = Path(__file__).parents[2]
NAMES = ("config.yaml", "metrics.jsonl", "unreadable.jsonl", "threads.jsonl", '"log.txt"')


def test_rows_are_whole_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics.write_bytes(b'{"step": 1}\n\nnull\n\xff\n{"step": 2}\n{"step": 3, "lo')
    assert run.rows() == ([{"step": 1}, {"step": 2}], [3, 4, 6])
    assert run.last_row() == {"step": 2}


def test_what_is_missing_is_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "none")
    assert run.last_row() == {} and run.read_result() == {} and not run.finished()
    with pytest.raises(FileNotFoundError):
        run.rows()


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_a_damaged_result_is_none(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.result.write_text(text)
    assert run.read_result() == {}


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    os.mkfifo(run.metrics)
    assert run.last_row() == {}
    with pytest.raises(UserError, match="a pipe"):
        run.rows()


def test_starting_over_deletes_what_an_earlier_run_measured(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    run.tensorboard.mkdir()
    for path in (run.last, run.metrics, run.result, run.threads, run.unreadable, run.log):
        path.write_text("{}")
    own = tmp_path / "notes.txt"
    own.write_text("mine")
    forget(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "notes.txt"]


def test_names_stand_in_one_file() -> None:
    """Where another module writes a name into a path, it would be known twice."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "convit_ssl").rglob("*.py")
        for line in path.read_text().splitlines()
        if any(f'/ "{name.strip(chr(34))}"' in line for name in NAMES)
    }
    assert found == {"convit_ssl/runs.py"}
