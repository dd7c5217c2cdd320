"""Where things go that can be made again, and memory that is kept."""

from __future__ import annotations

import os
import platform
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from convit_ssl.data.sources import cache_folder
from convit_ssl.evaluation.results import without_home
from convit_ssl.machine import keep_freed_memory, user_cache


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


FAULTS = """
import resource, sys, torch
from convit_ssl.machine import keep_freed_memory

if sys.argv[1] != "leave":
    print(keep_freed_memory())
if sys.argv[1] == "ask":
    sys.exit()
layers = [torch.nn.Linear(32, 512), torch.nn.GELU(), torch.nn.Linear(512, 32)] * 4
mlp, tokens = torch.nn.Sequential(*layers), torch.randn(20_000, 32)  # 39 MiB in between
with torch.inference_mode():
    for _ in range(6):
        mlp(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        mlp(tokens)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", FAULTS, what]
    return subprocess.check_output(command, text=True, env={**os.environ, **environment}).split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    done, kept = faults("keep")
    (usual,) = faults("leave")
    assert done == "True"
    assert int(kept) < int(usual) / 10
    left = {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}
    assert faults("ask", **left) == ["False"]
    assert faults("ask", MALLOC_MMAP_MAX_="65536") == ["False"]
    assert faults("ask", MALLOC_ARENA_MAX="2") == ["True"]


def test_a_c_library_without_such_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> NoReturn:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    assert not keep_freed_memory()
