"""A file is written whole or not at all, and what is no file stays what it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from convit_ssl.evaluation.results import write_json
from convit_ssl.writing import whole_file


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    """As root, ``--json /dev/null`` put a file in the place of the device."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json({"figure": 0.5}, pipe)
    reader.join(20)
    assert '"figure": 0.5' in found[0]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
def test_a_descriptor_gets_the_bytes(tmp_path: Path) -> None:
    """As ``/dev/stdout`` does, which leads to a terminal, a pipe or a file."""
    read, write = os.pipe()
    with whole_file(f"/dev/fd/{write}") as partial:
        partial.write_text("words")
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() == "words"
    with (tmp_path / "out").open("w+") as file:
        with whole_file(f"/dev/fd/{file.fileno()}") as partial:
            partial.write_text("words")
        assert file.read() == "words"
