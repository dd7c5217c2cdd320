"""Compiled settings are compiled, and their tables say nothing of eager runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from convit_ssl.bench import report

COMPILED = """
import torch
from convit_ssl.bench import models

graphs = 0

def count(graph, inputs):
    global graphs
    graphs += 1
    return graph.forward

compile_with = torch.compile
torch.compile = lambda model: compile_with(model, backend=count)
for batch in range(1, 10):
    setting = models.Setting("nano", 32, batch, "fp32", "forward", True, "cpu", "wall", 1)
    before = graphs
    measure = models.compare if batch == 9 else models.compare_times
    measure(setting, ["ours"], 1)
    assert graphs > before, f"setting {batch} was measured eagerly"
assert not torch._dynamo.config.fail_on_recompile_limit_hit
"""


@pytest.mark.slow
def test_the_ninth_setting_is_compiled_like_the_first() -> None:
    """Dynamo gives up after eight variants of a function, and runs it eagerly from then on.

    In a process of its own: shapes are checked by decorators here, which cannot compile.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def row(name: str) -> dict[str, Any]:
    numbers = dict.fromkeys(
        ("milliseconds", "images_per_s", "ours_is_faster", "ours_is_faster_at_best", "saved_mib",
         "saved_mib_per_step", "peak_mib"), 3.0)  # fmt: skip
    nothing = dict.fromkeys(("operations", "mfu", "of_ceiling"))
    return {"name": name, "quartiles": [2.0, 4.0], **numbers, **nothing}


def test_no_saved_memory_of_compiled_models() -> None:
    """It is counted on the eager model, and a compiler keeps something else."""
    setting = {"size": "nano", "side": 32, "batch": 1, "dtype": "fp32", "mode": "training"}
    for compiled in (False, True):
        comparison = {
            "setting": {**setting, "compiled": compiled},
            "rows": [row("ours"), row("timm"), row("vit")],
        }
        saved = [report.MODEL_COLUMNS.index(name) for name in ("saved MiB", "+ a step")]
        shown = {line[i] for line in report.model_cells(comparison) for i in saved}
        assert shown == ({"-"} if compiled else {"3.0"})
        assert report.ratio_cells([comparison])[0][-2:] == (["-"] if compiled else ["1.00"]) * 2
