"""What nodes find is put together into one message per failure, with the node's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from convit_ssl.engines.preflight import Findings, _probe_disk, code_digest, config_digest, judge

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
    assert messages[2].startswith("node n4 (rank 4): it was started with other options")


def test_room_is_asked_for_in_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    problems: list[str] = []
    assert _probe_disk(tmp_path / "runs" / "x" / "checkpoints", 1.0, problems) > 1.0
    assert problems == []
    _probe_disk(tmp_path, 1e9, problems)
    assert "which need 1,000,000,000 MiB; make room" in problems[0]


def test_digests_see_what_matters() -> None:
    assert len(code_digest()) == 64
    first = {"optim": {"lr": 0.1}, "run": {"root": "a"}}
    assert config_digest(first) == config_digest({**first, "run": {"root": "b"}})
    assert config_digest(first) != config_digest({**first, "optim": {"lr": 0.2}})
