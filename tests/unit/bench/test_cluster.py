"""``bench cluster``: the arithmetic against counting, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from convit_ssl.bench import cluster, cluster_checkpoints
from convit_ssl.bench.cluster import Cluster, Job
from convit_ssl.cli.main import main

JOB = Job("dino", "small", 64, 0.1, 0.003, 200e6, 0.0, 800e6)
RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.mark.parametrize("members", [1, 2, 3, 8])
def test_a_ring_sends_what_it_would_if_it_were_played(members: int) -> None:
    """Reduce-scatter, then all-gather: each round every member passes one of n parts on."""
    size, sent = 840.0, 0.0
    for _ in ("reduce-scatter", "all-gather"):
        for _ in range(members - 1):
            sent += size / members
    assert cluster.ring_bytes(size, members) == pytest.approx(sent)


def test_what_the_backward_pass_hides_costs_nothing() -> None:
    nodes = Cluster(64, 8)
    seconds, features = cluster.exchange_seconds(JOB, nodes, 12.5)
    assert features == 0
    assert seconds == pytest.approx(2 * 7 / 8 * 200e6 / 450e9 + 2 * 7 / 8 * 200e6 / 12.5e9)
    assert cluster.linear_share(JOB, nodes, 12.5) == 1.0
    slow, _ = cluster.exchange_seconds(JOB, nodes, 1.25)
    assert cluster.linear_share(JOB, nodes, 1.25) == pytest.approx(0.1 / (0.1 + slow - 2 / 3 * 0.1))


def test_gathered_features_hide_behind_nothing() -> None:
    """The loss needs them before the backward pass begins."""
    gathers = dataclasses.replace(JOB, gathered=1e6)
    _, features = cluster.exchange_seconds(gathers, Cluster(64, 8), 12.5)
    assert features == pytest.approx(7e6 / 450e9 + 7 * 8e6 / 12.5e9)
    share = cluster.linear_share(gathers, Cluster(64, 8), 12.5)
    assert share == pytest.approx(0.1 / (0.1 + features))


def test_one_gpu_asks_nothing_of_a_network() -> None:
    found = cluster.row(JOB, Cluster(1, 8))
    assert found["network_bytes_per_second"] == 0 and set(found["linear_shares"].values()) == {1.0}
    assert found["cores_per_node"] == pytest.approx(64 / 0.1 * 0.003)
    assert found["breaks"] == []


def test_what_breaks_is_named() -> None:
    assert cluster.row(JOB, Cluster(512, 8))["breaks"] == ["batch", "steps"]
    slow_loader = Job("dino", "small", 64, 0.1, 0.03, 2e9, 0.0, 8e9)
    assert cluster.row(slow_loader, Cluster(16, 8))["breaks"] == ["loader", "network"]


@pytest.mark.parametrize("gpus", [64, 512, 16_384])
def test_the_schedule_of_checkpoints_is_what_arithmetic_says(gpus: int) -> None:
    found = cluster_checkpoints.simulate(0.8e9, gpus)
    expected = cluster_checkpoints.expected_share(0.8e9, gpus)
    assert found["lost_share"] == pytest.approx(expected, rel=0.12)
    # Half of ten minutes, the write and five minutes.
    if gpus < 1000:
        assert found["lost_seconds_per_kill"] == pytest.approx(600.8, rel=0.02)
    limit = cluster_checkpoints.breaking_gpus(0.8e9)
    assert cluster_checkpoints.expected_share(0.8e9, limit) == pytest.approx(0.05, rel=1e-3)
    assert cluster_checkpoints.breaking_gpus(1e12) == 0


def test_the_command_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = RESULTS / "bench_step_h200_2026-11-26" / "result.json"
    data = RESULTS / "bench_data_cpu_2026-11-27" / "result.json"
    out = tmp_path / "cluster.json"
    command = ["bench", "cluster", "--step", str(steps), "--data", str(data), "--json", str(out)]
    assert main([*command, "--markdown", str(tmp_path / "cluster.md")]) == 0
    dino = json.loads(out.read_text())["comparisons"][0]
    assert [line["gpus"] for line in dino["rows"]] == [8, 64, 512]
    # 27.4 million weights of the trunk and 22.4 of the head, the published one of 65,536 outputs.
    assert dino["setting"]["gradients"] / 4e6 == pytest.approx(49.7, abs=0.2)
    assert "dino, small" in capsys.readouterr().out
    assert "| 512 | 32768 | 39 |" in (tmp_path / "cluster.md").read_text()
    assert dino["checkpoints"][2]["lost_share"] < 0.01 < dino["breaking_gpus"]
    assert "5 % of the time is lost at" in (tmp_path / "cluster.md").read_text()
    assert main([*command[:4], "--data", str(steps)]) == 2
    assert "is not a result of bench data" in capsys.readouterr().err
    assert main([*command, "--methods", "swav"]) == 2
    assert "has no step of swav, small" in capsys.readouterr().err
