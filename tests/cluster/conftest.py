"""One SLURM for all tests, and the undisturbed run they are compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import private_slurm
from tests.quick_run import Run

EPOCHS = 60


@pytest.fixture(scope="session")
def slurm() -> Iterator[private_slurm.Slurm]:
    reason = private_slurm.missing()
    if reason:
        pytest.skip(reason)
    # munge wants a short path
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as base:
        cluster = private_slurm.Slurm(Path(base))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of two processes on one machine that nothing happens to."""
    run = Run(tmp_path_factory.mktemp("undisturbed"), f"optim.epochs={EPOCHS}", "run.processes=2")
    assert run.complete() == 0, run.text()
    return run.losses()
