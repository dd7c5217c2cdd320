"""Writing a file whole: regular files are replaced, devices, pipes and links are not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.subsets import write_list
from convit_ssl.evaluation.results import write_json
from convit_ssl.export import files
from convit_ssl.sealed import note_beside
from convit_ssl.writing import whole_file

WRITERS = [whole_file, files.whole_file]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    return path


def read_in_background(path: Path, found: list[bytes]) -> threading.Thread:
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_into_and_stays(pipe: Path, writer: object, linked: bool) -> None:
    path = pipe
    if linked:
        path = pipe.with_name("link.json")
        path.symlink_to(pipe)
    found: list[bytes] = []
    reader = read_in_background(pipe, found)
    with writer(path) as partial:  # type: ignore[operator]
        partial.write_bytes(b"all of it")
    reader.join(5)
    assert found == [b"all of it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode) and path.is_symlink() == linked
    assert sorted(os.listdir(pipe.parent)) == sorted({pipe.name, path.name})


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_keeps_leading_to_what_is_written(tmp_path: Path, writer: object) -> None:
    (tmp_path / "shared").mkdir()
    place, link = tmp_path / "shared" / "a.json", tmp_path / "a.json"
    for _ in range(2):  # before the file is there, and after
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        with writer(link) as partial:  # type: ignore[operator]
            partial.write_text("new")
        assert link.is_symlink() and place.read_text() == "new"
    assert os.listdir(tmp_path / "shared") == ["a.json"]


def test_results_and_lists_may_go_into_a_pipe(pipe: Path, tmp_path: Path) -> None:
    found: list[bytes] = []
    reader = read_in_background(pipe, found)
    write_json({"a": 1}, pipe)
    reader.join(5)
    assert b'"a": 1' in found[0] and stat.S_ISFIFO(pipe.stat().st_mode)
    reader = read_in_background(pipe, found)
    write_list(Listing(tmp_path, ["cat/1.png"], ["cat"], [0]), pipe)  # type: ignore[arg-type]
    reader.join(5)
    assert found[1] == b"cat/1.png\n" and stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == [pipe.name]


def test_a_descriptor_gets_the_bytes(tmp_path: Path) -> None:
    read, write = os.pipe()
    with whole_file(f"/dev/fd/{write}") as partial:
        partial.write_text("words")
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() == "words"


def test_no_checksum_stands_beside_a_pipe(pipe: Path) -> None:
    note_beside(pipe)
    assert os.listdir(pipe.parent) == [pipe.name]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_appended_to(tmp_path: Path, kind: str) -> None:
    code = (
        "from convit_ssl.writing import whole_file\n"
        "print('first', flush=True)\n"
        "with whole_file('/dev/stdout') as partial: partial.write_text('second')\n"
        "print('third')\n"
    )
    if kind == "pipe":
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    else:
        with (tmp_path / "out.txt").open("wb") as out:
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        found = (tmp_path / "out.txt").read_bytes()
    assert found == b"first\nsecondthird\n"
