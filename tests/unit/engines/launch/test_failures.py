"""Errors of a step whose cause lies elsewhere become a sentence; all others stay as they are."""

from __future__ import annotations

from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from convit_ssl.engines.callbacks.heartbeat import Heartbeat
from convit_ssl.engines.launch.failures import describe_loss, describe_shortage


def options_of_run(images: int = 128, parts: int = 2, variant: str = "convit_tiny") -> Any:
    """What the message is made of, as attributes."""
    return OmegaConf.create(
        {
            "optim": {"accumulate": parts, "batch_size": 1024},
            "derived": {"batch_per_process": images},
            "trunk": {"variant": variant},
        }
    )


@pytest.fixture
def heartbeat(tmp_path: Path) -> Heartbeat:
    return Heartbeat(tmp_path, 1, 2, 60.0, None)


def real_shortage() -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize(
    "error", [real_shortage(), torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")]
)
def test_memory_that_ran_out(error: RuntimeError, heartbeat: Heartbeat) -> None:
    text = describe_shortage(error, options_of_run(), heartbeat)
    assert text is not None
    assert text.startswith("rank 1 on ") and "\n" not in text
    assert "takes 128 images in optim.accumulate=2 parts: give optim.accumulate=4 " in text
    assert "less than optim.batch_size=1024" in text


@pytest.mark.parametrize(
    ("images", "parts", "variant", "advice"),
    [
        (36, 1, "convit_tiny", "give optim.accumulate=2 "),
        (36, 4, "convit_tiny", "give optim.accumulate=9 "),
        (35, 1, "convit_tiny", "give optim.accumulate=5 "),
        (36, 36, "convit_tiny", "give less than optim.batch_size=1024"),
        (36, 1, "resnet50", "give less than optim.batch_size=1024"),
    ],
)
def test_parts_that_are_advised_can_be_had(
    images: int, parts: int, variant: str, advice: str, heartbeat: Heartbeat
) -> None:
    options = options_of_run(images, parts, variant)
    text = describe_shortage(torch.OutOfMemoryError("CUDA out of memory"), options, heartbeat)
    assert text is not None and advice in text


def test_a_worker_that_was_killed(heartbeat: Heartbeat) -> None:
    killed = "DataLoader worker (pid 12) is killed by signal: Killed. \nMore"
    text = describe_loss(RuntimeError(killed), heartbeat)
    assert text is not None
    assert "lost a loader worker at step 0 (DataLoader worker (pid 12) is killed by" in text
    reason = "RuntimeError: unable to allocate shared memory(shm) for file"
    caught = f"Caught RuntimeError in DataLoader worker process 0.\nTraceback\n{reason}"
    text = describe_loss(RuntimeError(caught), heartbeat)
    assert text is not None
    assert f"at step 0 ({reason})" in text


def test_a_worker_that_was_killed_while_its_batch_was_fetched(
    tmp_path: Path, heartbeat: Heartbeat
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        resource_sharer._resource_sharer.get_connection((str(tmp_path / "socket"), 1))
    text = describe_loss(raised.value, heartbeat)
    assert text is not None and "lost a loader worker at step 0 (" in text
    assert describe_loss(FileNotFoundError("x.png"), heartbeat) is None
    assert describe_loss(EOFError(), heartbeat) is None


def test_a_process_that_is_gone(heartbeat: Heartbeat) -> None:
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    text = describe_loss(closed, heartbeat)
    assert text is not None and "lost another process at step 0" in text
    heartbeat.world_size = 1
    assert describe_loss(closed, heartbeat) is None


@pytest.mark.parametrize("words", ["", "Caught ValueError in DataLoader worker process 0.\nX"])
def test_other_errors(words: str, heartbeat: Heartbeat) -> None:
    assert describe_loss(RuntimeError(words), heartbeat) is None
    assert describe_shortage(RuntimeError(words), options_of_run(), heartbeat) is None
