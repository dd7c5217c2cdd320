"""What nodes find is put together into one message per failure, with the node's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from convit_ssl.data.loading import loader_workers
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.engines.launch import preflight
from convit_ssl.engines.launch.preflight import (
    Findings,
    _probe_disk,
    _probe_images,
    _probe_shared_memory,
    code_digest,
    config_digest,
    judge,
)

GOOD = Findings("n1", 0, "code", "commit", "config", 100.0, 1000.0)


def test_alike_nodes_pass() -> None:
    assert judge([GOOD, replace(GOOD, node="n2", rank=1)]) == []


def test_each_failure_names_its_node_once() -> None:
    every = [
        GOOD,
        replace(GOOD, node="n2", rank=1, problems=["/data/a.png cannot be read"]),
        replace(GOOD, node="n2", rank=2, problems=["/data/a.png cannot be read"]),
        replace(GOOD, node="n3", rank=3, code="other", commit="0123456789abcdef"),
        replace(GOOD, node="n4", rank=4, config="other"),
    ]
    messages = judge(every)
    assert len(messages) == 3
    assert messages[0] == "node n2 (rank 1): /data/a.png cannot be read"
    assert messages[1].startswith("node n3 (rank 3): its convit_ssl (0123456789ab) differs from")
    assert messages[2].startswith("node n4 (rank 4): it was started with different options")


def test_room_is_asked_for_in_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    problems: list[str] = []
    assert _probe_disk(tmp_path / "runs" / "x" / "checkpoints", 1.0, problems) > 1.0
    assert problems == []
    _probe_disk(tmp_path, 1e9, problems)
    assert "which need 1,000,000,000 MiB; make room" in problems[0]


def test_containers_have_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_workers, "free_shared_mib", lambda: 64.0)
    monkeypatch.setattr(preflight, "free_shared_mib", lambda: 64.0)
    problems: list[str] = []
    _probe_shared_memory(3.9, SimpleNamespace(processes=2, workers=8), problems)
    assert problems == []
    _probe_shared_memory(67.0, SimpleNamespace(processes=2, workers=8), problems)
    assert problems == [
        "2 x 8 loader workers may keep 1,072 MiB of batches in /dev/shm, where 64 MiB are free; "
        "start the container with --shm-size=3g or --ipc=host, or give data.workers=0"
    ]
    _probe_shared_memory(10.0, SimpleNamespace(processes=2, workers=8), problems)
    assert problems[-1].endswith("or give data.workers=3")


def test_digests_see_what_matters() -> None:
    assert len(code_digest()) == 64
    first = {"optim": {"lr": 0.1}, "run": {"root": "a"}}
    assert config_digest(first) == config_digest({**first, "run": {"root": "b"}})
    assert config_digest(first) != config_digest({**first, "optim": {"lr": 0.2}})


def task_on(paths: list[Path]) -> SimpleNamespace:
    """What the probe of images looks at: their paths, and a data set that replaces bad ones."""

    class Images(list[Path]):
        reading = Reading()

        def path(self, index: int) -> str:
            return str(self[index])

    images = Images(paths)
    return SimpleNamespace(inputs=SimpleNamespace(datasets={"TRAIN": images}, train=images))


def test_a_bad_image_is_no_missing_folder(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    paths[2].write_bytes(b"an image")
    problems: list[str] = []
    assert _probe_images(task_on(paths), problems) > 0
    assert problems == []
    paths[2].unlink()
    assert _probe_images(task_on(paths), problems) == 0
    assert len(problems) == 1
    assert f"{paths[0]} cannot be read (No such file or directory); mount the data" in problems[0]
