"""Temporary folders of killed processes go with the next; those in use stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from convit_ssl.leftovers import temporary_folder

CHILD = """
import sys
from convit_ssl.leftovers import temporary_folder
with temporary_folder("convit_ssl-try-") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", CHILD], **pipes)  # type: ignore[call-overload]
    theirs = Path(child.stdout.readline().strip())
    with temporary_folder("convit_ssl-try-") as ours:
        with temporary_folder("convit_ssl-try-") as inner:
            assert {ours, inner, theirs} == set(tmp_path.iterdir())
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        with temporary_folder("convit_ssl-try-") as inner:
            assert {ours, inner} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
