"""Slow imports are named while they last; a quick start says nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from convit_ssl import starting

SLOW = "import time\nfor _ in range(60):\n    time.sleep(0.005)\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(starting, "FIRST_LINE", 0.05)
    monkeypatch.setattr(starting, "BETWEEN_CHECKS", 0.01)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_library.py").write_text(SLOW)
    (tmp_path / "outer_library.py").write_text("import slow_library\n")


@pytest.mark.usefixtures("quick")
def test_the_outermost_library_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with starting.imports_reported("knn"):
        import outer_library  # type: ignore[import-not-found]  # noqa: F401
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert set(lines) == {"convit-ssl knn: importing libraries (outer_library), 0 s"}
    sys.modules.pop("outer_library"), sys.modules.pop("slow_library")


@pytest.mark.usefixtures("quick")
def test_work_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with starting.imports_reported("knn"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_a_late_import_is_not_as_long_as_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 0.1, 0.2, 900.0, 900.5, 902.5])
    imported = iter(["convit_ssl", None, "matplotlib", "matplotlib", "matplotlib"])
    checks = iter([False] * 5 + [True])
    monkeypatch.setattr("convit_ssl.starting.time.monotonic", lambda: next(now))
    monkeypatch.setattr(starting, "_imported", lambda _: next(imported))
    monkeypatch.setattr(starting._at_work, "wait", lambda _: next(checks))
    monkeypatch.setattr(starting, "FIRST_LINE", 2.0)
    monkeypatch.setattr(starting, "spoke", lambda: None)
    starting._report("study", 0)
    line = "convit-ssl study: importing libraries (matplotlib), 2 s\n"
    assert capsys.readouterr().err == line
