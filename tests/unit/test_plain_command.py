"""tools/plain_command.py: the page of what a run said."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "plain_command.py"))
ROW = {
    "data": "digits",
    "command": ["train", "config=convit_simclr", "data=digits"],
    "epochs": 3,
    "images": 1000,
    "core_minutes": 1.26,
    "verdict": {
        "probe": "kNN",
        "metric": "balanced_accuracy",
        "against": {"raw pixels": {"difference": -0.039, "interval_95": [-0.056, 0.021]}},
    },
    "said": ["worse than raw pixels: -3.9"],
}


def test_the_page_has_the_difference_and_what_was_said() -> None:
    page = TOOL["_page"]([ROW])
    assert "| digits | 1,000 | 3 | 1.3 | kNN, balanced accuracy | -3.9 (-5.6 to +2.1) |" in page
    assert "    convit-ssl train config=convit_simclr data=digits" in page
    assert page.endswith("    worse than raw pixels: -3.9")
