"""Figures of collapse, and that a message comes when, and only when, it should."""

import math

import pytest
import torch

from convit_ssl.methods import diagnose, effective_rank, feature_std


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank: int) -> None:
    basis = torch.linalg.qr(torch.randn(50, 8))[0]
    features = basis[:, :rank] @ torch.linalg.qr(torch.randn(11, 11))[0][:rank]
    assert effective_rank(features) == pytest.approx(rank, rel=1e-3)


def test_figures_at_their_ends() -> None:
    assert effective_rank(torch.zeros(5, 3)) == 1
    assert feature_std(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(4000, 64)) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            {"loss": 11.0902, "out_dim": 65536},
            ["ln(out_dim=65536) is 11.0904", "Lower the teacher"],
        ),
        ({"loss": 6.0, "out_dim": 1024, "teacher_entropy": 6.93}, ["entropy 6.93", "uniform"]),
        ({"loss": 1e-4, "out_dim": 1024, "teacher_entropy": 1e-5}, ["one output", "Raise"]),
        ({"loss": 3.0, "rank": 1.2}, ["rank 1.20", "learning rate"]),
        ({"loss": 3.0, "std": 0.001}, ["deviation 0.0010"]),
        ({"loss": 3.0, "rank": math.nan}, ["rank nan"]),
        ({"loss": math.nan}, ["loss is nan", "clip"]),
        ({"loss": math.inf, "out_dim": 8, "epoch": 0}, ["loss is inf"]),
    ],
)
def test_collapse_is_named_in_one_line(figures: dict[str, float], words: list[str]) -> None:
    message = diagnose(**figures)  # type: ignore[arg-type]
    assert message is not None
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "figures",
    [
        {"loss": 11.09, "out_dim": 65536, "epoch": 1},
        {"loss": 5.2, "out_dim": 1024, "teacher_entropy": 4.0, "rank": 40, "std": 0.8},
        {"loss": 2.0, "rank": 12.0},
        {"loss": 1e-3},
        {"loss": 0.6, "out_dim": 1024, "teacher_entropy": 0.05},
    ],
)
def test_healthy_runs_are_left_alone(figures: dict[str, float]) -> None:
    assert diagnose(**figures) is None  # type: ignore[arg-type]
