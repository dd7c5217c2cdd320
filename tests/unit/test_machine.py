"""Where things go that can be made again, also for users without a home."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from convit_ssl.data.sources import cache_folder
from convit_ssl.evaluation.results import without_home
from convit_ssl.machine import user_cache


def temporary() -> Path:
    return Path(tempfile.gettempdir(), f"convit_ssl-{os.getuid()}")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("XDG_CACHE_HOME", "CONVIT_SSL_DATA"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_home(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("HOME", str(tmp_path))
    assert user_cache() == cache_folder() == tmp_path / ".cache" / "convit_ssl"
    clean.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg" / "convit_ssl"
    clean.setenv("CONVIT_SSL_DATA", str(tmp_path / "data"))
    assert cache_folder() == tmp_path / "data"


def test_a_user_whom_the_system_does_not_know(clean: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    clean.delenv("HOME", raising=False)
    clean.setattr(pwd, "getpwuid", unknown)
    assert user_cache() == cache_folder() == temporary()
    assert without_home("/tmp/x") == "/tmp/x"


def test_a_home_that_cannot_be_written(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("HOME", str(tmp_path))
    clean.setattr(os, "access", lambda path, mode: False)
    assert user_cache() == temporary()
    (tmp_path / ".cache" / "convit_ssl").mkdir(parents=True)  # somebody made it: then it is used
    assert user_cache() == tmp_path / ".cache" / "convit_ssl"
