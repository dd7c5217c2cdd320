"""The page of a study: sample efficiency, ablations, accuracy against size and speed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from convit_ssl import __version__
from convit_ssl.analysis import published
from convit_ssl.analysis.page import build_page, write_text
from convit_ssl.analysis.serialise import plain
from convit_ssl.analysis.study_points import read_study


def write_comparison(paths: Sequence[Path], folder: Path) -> Path:
    """Write comparison.html and comparison.json.

    Args:
        paths: results.json files of `convit-ssl study`.
        folder: is made where it does not exist.

    Raises:
        UserError: see `read_study`.
    """
    points, problems = read_study(paths)
    made = time.strftime("%Y-%m-%d %H:%M:%S %z")
    data = {
        "points": plain(points),
        "problems": problems,
        "published": {
            "source": published.SOURCE,
            "models": plain(published.MODELS),
            "sample_efficiency": [
                {"fraction": share, "convit": convit, "deit": deit}
                for share, (convit, deit) in published.SAMPLE_EFFICIENCY.items()
            ],
            "ablations": [
                {"name": name, "full": full, "tenth": tenth}
                for name, (full, tenth) in published.ABLATIONS.items()
            ],
        },
        "footer": f"Made {made} by convit_ssl {__version__}.",
    }
    write_text(folder / "comparison.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
    page = folder / "comparison.html"
    subtitle = f"{len(points)} settings · made {made}"
    title = f"Comparison: {', '.join(Path(os.path.realpath(path.parent)).name for path in paths)}"
    write_text(page, build_page("comparison", title, subtitle, data))
    return page
