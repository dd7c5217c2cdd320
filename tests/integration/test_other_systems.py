"""Workers that are spawned, and a machine without what only Linux has: the same losses."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from tests.integration.test_faults_world_size import write_shards
from tests.quick_run import Run

pytestmark = pytest.mark.slow
# As macOS: no /proc, no CPU affinity, no prctl, no /dev/shm. Spawned workers import it, too.
WITHOUT_LINUX = """
    import ctypes, os, pathlib

    del os.sched_getaffinity, os.sched_setaffinity
    library = ctypes.CDLL
    ctypes.CDLL = lambda name, *rest, **options: name and library(name, *rest, **options)

    def hide(function):
        def hidden(path, *args, **kwargs):
            if str(path).startswith(("/proc", "/sys", "/dev/shm")):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return function(path, *args, **kwargs)
        return hidden

    for name in ("read_text", "read_bytes", "exists", "is_file"):
        setattr(pathlib.Path, name, hide(getattr(pathlib.Path, name)))
    os.readlink, os.statvfs = hide(os.readlink), hide(os.statvfs)
"""


def train(root: Path, *options: str, **environment: str) -> Run:
    run = Run(root, "optim.epochs=2", "data.workers=2", "watch.every=1", *options)
    # Without /proc/cpuinfo nobody knows whose processor it is, and so which library is faster.
    assert run.complete(**environment, CONVIT_SSL_ONEDNN="0") == 0, run.text()
    assert run.stray_files() == []
    return run


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("forked"), CONVIT_SSL_START_METHOD="fork")


def test_spawned_workers(forked: Run, tmp_path: Path) -> None:
    spawned = train(tmp_path, CONVIT_SSL_START_METHOD="spawn")
    assert spawned.losses() == forked.losses()
    assert [epoch["knn"] for epoch in spawned.epochs()] == [e["knn"] for e in forked.epochs()]


def test_a_machine_without_linuxs_own(forked: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(WITHOUT_LINUX))
    run = train(
        tmp_path / "runs",
        PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]),
        CONVIT_SSL_START_METHOD="spawn",
    )
    assert run.losses() == forked.losses()


def test_shards_are_read_by_spawned_workers(tmp_path: Path) -> None:
    shards = ["data=shards", f"data_dir={write_shards(tmp_path / 'shards')}"]
    losses = [
        train(tmp_path / how, *shards, CONVIT_SSL_START_METHOD=how).losses()
        for how in ("fork", "spawn")
    ]
    assert losses[0] == losses[1]
