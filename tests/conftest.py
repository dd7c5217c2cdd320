"""What every test runs under: shims, checked shapes, one thread, the same seeds."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

import convit_ssl.compat
from convit_ssl import starting
from convit_ssl.evaluation import progress

# Before any of our modules is imported: their jaxtyping signatures become checks.
install_import_hook(
    ["convit_ssl.models", "convit_ssl.methods", "convit_ssl.analysis"], "beartype.beartype"
)
convit_ssl.compat.install()

# Two xdist workers share two cores on the smallest machine this is meant for.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers for each test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  VISSL's transforms draw from the global state
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_progress_of_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run in this process says what it says on any machine: lines of progress never.

    Tests of progress set these waits themselves.
    """
    monkeypatch.setattr(starting, "FIRST_LINE", 3600.0)
    monkeypatch.setattr(progress, "FIRST_LINE", 3600.0)
    monkeypatch.setattr(progress, "SOONEST", 3600.0)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """A test leaves no environment variable behind: the program's start sets some for good."""
    before = dict(os.environ)
    yield
    for name in (before.keys() | os.environ.keys()) - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]
