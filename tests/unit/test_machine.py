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

from convit_ssl.data.sources.builtin import cache_folder
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import without_home
from convit_ssl.machine import (
    START_METHOD,
    WAITING,
    available_cores,
    core_limit,
    keep_freed_memory,
    peak_resident_mib,
    release_freed_memory,
    start_method,
    user_cache,
    wait_briefly,
)


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
from convit_ssl.machine import keep_freed_memory, release_freed_memory

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


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20


held = resident()
release_freed_memory()
print(held - resident())
"""


def faults(what: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", FAULTS, what]
    return subprocess.check_output(command, text=True, env={**os.environ, **environment}).split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    done, kept, released = faults("keep")
    usual, _ = faults("leave")
    assert done == "True"
    assert int(kept) < int(usual) / 10
    assert int(released) > 39  # MiB, once it is asked for
    left = {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}
    assert faults("ask", **left) == ["False"]
    assert faults("ask", MALLOC_MMAP_MAX_="65536") == ["False"]
    assert faults("ask", MALLOC_ARENA_MAX="2") == ["True"]


def test_a_c_library_without_such_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> NoReturn:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    assert not keep_freed_memory()
    assert not release_freed_memory()


def cgroups(root: Path, own: str, files: dict[str, str]) -> Path:
    """A /proc and /sys with the cgroups of this process."""
    for name, text in {"proc/self/cgroup": own, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_"


@pytest.mark.parametrize(
    ("own", "files", "cores", "words"),
    [
        ("0::/job/step\n", {"sys/fs/cgroup/job/cpu.max": "300000 100000\n"}, 3, "limit of 3"),
        ("0::/job\n", {"sys/fs/cgroup/job/cpu.max": "50000 100000\n"}, 1, "limit of 0.5"),
        ("0::/job\n", {"sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 16, "affinity"),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2, "limit of 2.5"),
        ("0::/../host\n", {"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 16, "affinity"),
        (
            "4:cpu,cpuacct:/docker/x\n",
            {f"{V1}quota_us": "400000\n", f"{V1}period_us": "100000\n"},
            4,
            "limit of 4, of 64 cores",
        ),
        ("4:cpu,cpuacct:/docker/x\n", {f"{V1}quota_us": "-1\n", f"{V1}period_us": "1\n"}, 16, ""),
        ("4:cpu,cpuacct:/docker/x\n", {f"{V1}quota_us": "?\n", f"{V1}period_us": "1\n"}, 16, ""),
    ],
)
def test_cores_within_affinity_and_cgroups(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    own: str,
    files: dict[str, str],
    cores: int,
    words: str,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    found, why = core_limit(cgroups(tmp_path, own, files))
    assert found == cores == available_cores(tmp_path)
    assert words in why


def test_a_machine_without_cgroups_or_affinity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert core_limit(tmp_path) == (8, "all cores")


@pytest.mark.parametrize("name", WAITING)
def test_threads_wait_briefly_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    assert wait_briefly()
    assert environment == {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
    assert not wait_briefly()  # in a process that this one started
    environment.clear()
    environment[name] = "of the user"
    assert not wait_briefly()
    assert environment == {name: "of the user"}


def test_waiting_is_set_before_pytorch_is_imported() -> None:
    code = (
        "import os, sys, convit_ssl.cli.main as main, convit_ssl.machine as machine\n"
        "real = machine.wait_briefly\n"
        "main.wait_briefly = lambda: print('torch' in sys.modules, real())\n"
        "main.run_command('train', ['config=no_such'])"
    )
    clean = {key: value for key, value in os.environ.items() if key not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "False True"


def test_workers_start_as_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(START_METHOD, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert start_method() == "fork"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert start_method() == "spawn"
    monkeypatch.setenv(START_METHOD, "forkserver")
    assert start_method() == "forkserver"
    monkeypatch.setenv(START_METHOD, "thread")
    with pytest.raises(UserError, match=r"CONVIT_SSL_START_METHOD=thread: choose from .*fork"):
        start_method()


def test_peak_memory_is_in_mib_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    held = bytearray(64 << 20)
    here = peak_resident_mib()
    assert 64 < here < 1e5 and held is not None
    monkeypatch.setattr(sys, "platform", "darwin")  # where the number is in bytes
    assert peak_resident_mib() < here / 500
