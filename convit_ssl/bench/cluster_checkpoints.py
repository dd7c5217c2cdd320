"""Simulate checkpoints on a cluster with interruptions drawn at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convit_ssl.bench.report import TableOf

INTERVAL = 600.0  # seconds: run.checkpoint_minutes
RESTART = 300.0  # back in SLURM's queue, imports, the first step
# Unexpected interruptions in 54 days on 16,384 GPUs: arXiv:2407.21783, table 5.
GPU_SECONDS_PER_FAILURE = 16_384 * 54 * 24 * 3600 / 419
COPY = 10e9  # bytes/s of the state from a GPU to main memory, during which the step waits
WRITE = 1e9  # bytes/s of one writer to a shared file system
KILLS = 20_000  # drawn for each line
BREAKING = 0.05  # of the time
COLUMNS = (
    "GPUs", "a kill every", "copy, s", "write, s", "writing, %", "lost at a kill, min",
    "lost, %", "best interval, min", "breaks",
)  # fmt: skip
NOTES = [
    "Checkpoints: simulated, not measured. Failures are drawn at random at the rate reported "
    "for 16,384 GPUs (arXiv:2407.21783: 419 unexpected interruptions in 54 days), 20,000 per "
    "line. Every 10 minutes the state is copied to main memory at 10 GB/s while the step "
    "waits; then a thread writes it to disk at 1 GB/s while training continues. If a job is "
    "killed before the write is complete, it resumes from the previous checkpoint. A restart "
    "takes 5 minutes until the first step.",
    "Writing: share of the time in which the thread writes. Best interval: the square root of "
    "twice the copy time multiplied by the time between kills (Young, 1974). Breaks: more "
    "than 5 % of the time is lost, or a write takes longer than the interval. Each title "
    "gives the number of GPUs at which 5 % of the time is lost.",
]


def simulate(size: float, gpus: int, seed: int = 0) -> dict[str, float]:
    """Simulate a job between random interruptions.

    Args:
        size: bytes of a checkpoint.
        gpus: number of GPUs, each of which may fail.
        seed: of the random numbers.
    """
    between = GPU_SECONDS_PER_FAILURE / gpus
    lives = np.random.default_rng(seed).exponential(between, KILLS)
    copy, write = size / COPY, size / WRITE
    round_ = INTERVAL + copy
    kept = np.floor(np.maximum(lives - write, 0.0) / round_)  # checkpoints that are whole
    useful = kept * INTERVAL
    lost = lives - kept * round_ + RESTART
    return {
        "gpus": gpus,
        "seconds_between_kills": between,
        "copy_seconds": copy,
        "write_seconds": write,
        "writing_share": write / round_,
        "lost_seconds_per_kill": float(lost.mean()),
        "lost_share": float(1 - useful.sum() / (lives.sum() + KILLS * RESTART)),
        "best_interval_seconds": math.sqrt(2 * copy * between),
    }


def expected_share(size: float, gpus: float) -> float:
    """The fraction of time lost that `simulate` finds, in closed form, while kills are rare."""
    copy, write = size / COPY, size / WRITE
    per_kill = (INTERVAL + copy) / 2 + write + RESTART
    return copy / (INTERVAL + copy) + per_kill * gpus / GPU_SECONDS_PER_FAILURE


def breaking_gpus(size: float) -> int:
    """So many GPUs that kills and copies take `BREAKING` of the time; 0 where copies alone do."""
    copy, write = size / COPY, size / WRITE
    left = BREAKING - copy / (INTERVAL + copy)
    per_kill = (INTERVAL + copy) / 2 + write + RESTART
    return max(0, int(left * GPU_SECONDS_PER_FAILURE / per_kill))


def table(comparison: Mapping[str, Any]) -> TableOf:
    """The lines of one job."""
    job = comparison["setting"]
    title = (
        f"{job['method']}, {job['size']}: checkpoints of {job['checkpoint'] / 1e9:.1f} GB every 10 "
        f"minutes; 5 % of the time is lost at {comparison['breaking_gpus']:,} GPUs"
    )
    return title, COLUMNS, [cells(line) for line in comparison["checkpoints"]]


def cells(line: Mapping[str, float]) -> list[str]:
    """A line as text."""
    breaks = []
    if line["lost_share"] > BREAKING:
        breaks.append("kills")
    if line["writing_share"] >= 1:
        breaks.append("write")
    hours = line["seconds_between_kills"] / 3600
    return [
        f"{line['gpus']:,}",
        f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} h",
        f"{line['copy_seconds']:.2f}",
        f"{line['write_seconds']:.1f}",
        f"{100 * line['writing_share']:.2f}",
        f"{line['lost_seconds_per_kill'] / 60:.1f}",
        f"{100 * line['lost_share']:.2f}",
        f"{line['best_interval_seconds'] / 60:.1f}",
        ", ".join(breaks) or "no",
    ]
