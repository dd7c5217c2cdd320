"""``bench data --formats``: what reading a format costs beside its own library.

Every file is written by a library of the format, and both readings are compared number by number
before they are timed. Time is CPU time of the process, in alternating rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.bench.format_cases import CASES, SIDE, Case, ours

TITLE = "Reading one image of each format"
COLUMNS = ("format", "image", "ours, ms", "its library, ms", "ratio", "lowest and highest ratio")
NOTES = [
    "CPU time to read one image as an (H, W, C) array of the file's own values. Median over "
    "rounds in which this project's reader and the format's own library, used as its "
    "documentation shows, take turns. Both return equal arrays. The files, a few hundred KiB "
    "each, are in the page cache. NIfTI has two rows: one slice of a newly opened file, and "
    "all slices of a volume in order. Slides and films stay open. Formats whose library is "
    "not installed are left out.",
]
_LEAST_SECONDS = 0.05  # of a round


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row for each format whose library is installed."""
    rows = []
    values = np.random.default_rng(0).integers(0, 4000, (SIDE, SIDE, 4)).astype(np.uint16)
    # Smooth, so that compression has something to do.
    values = np.sort(values, axis=1)
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="convit_ssl-formats-") as folder:
            try:
                path = case.write(Path(folder), values)
                expected = case.read(path)
            except ImportError:
                continue
            if not np.array_equal((case.ours or ours)(path), expected):
                raise AssertionError(f"{case.name} is read differently")
            rows.append({"format": case.name, "image": case.image, **_timed(case, path, repeats)})
    return rows


def _timed(case: Case, path: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of an image, of each round."""
    own = case.ours or ours
    began = time.process_time()
    own(path)
    case.read(path)
    count = max(1, round(_LEAST_SECONDS / max(time.process_time() - began, 1e-6)))
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(repeats):
        for read, found in ((own, mine), (case.read, theirs)):
            began = time.process_time()
            for _ in range(count):
                read(path)
            found.append(1000 * (time.process_time() - began) / count)
    return {"ours_ms": mine, "library_ms": theirs}


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows as text."""
    made = []
    for row in rows:
        pairs = zip(row["ours_ms"], row["library_ms"], strict=True)
        ratios = sorted(mine / theirs for mine, theirs in pairs)
        made.append([
            row["format"], row["image"], f"{statistics.median(row['ours_ms']):.2f}",
            f"{statistics.median(row['library_ms']):.2f}", f"{statistics.median(ratios):.2f}",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        ])  # fmt: skip
    return made
