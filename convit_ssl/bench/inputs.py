"""``bench data``: input pipelines, and the cores that an accelerator needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

TITLE = "Input pipelines: ms per image on one core, and cores needed per accelerator"
COLUMNS = ("crops", "from", "pipeline", "ms", "speed", "1,000/s", "2,500/s")
NOTES = [
    "CPU time of one thread per image, including decoding, on scikit-learn's two photographs "
    "at 500 x 375 pixels, a typical size in ImageNet. Cores: how many an accelerator's loader "
    "workers need at a given training speed in images/s; 2,500 is the modelled speed of a "
    "compiled ConViT-S DINO step on an H200.",
]


def measure(repeats: int, device: str | None) -> list[dict[str, Any]]:
    """Milliseconds per image of each pipeline."""
    from convit_ssl.data.augment.timing import time_pipelines

    return [asdict(row) for row in time_pipelines(repeats, device)]


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Lines of the table."""
    lines, base = [], 0.0
    for row in rows:
        spent = row["milliseconds"]
        base = spent if row["pipeline"] == "pil" else base
        on_device = row["pipeline"].startswith("device (on")
        cores = ["-", "-"] if on_device else [f"{rate * spent / 1e3:.1f}" for rate in (1000, 2500)]
        lines.append(
            [
                row["crops"], row["source"], row["pipeline"], f"{spent:.2f}",
                f"{base / spent:.1f} x", *cores,
            ]
        )  # fmt: skip
    return lines
