"""A small study, and processes that stand for its training runs."""

from __future__ import annotations

import sys
from pathlib import Path

from convit_ssl.evaluation.studies.design import (
    Run,
    Settings,
    Study,
    sample_efficiency,
)

SETTINGS = Settings("digits", epochs=20, batch_size=32)


# Stands for a training run: says when it ran, and leaves what a run leaves.
TRAIN = """
import json, os, sys, time
from pathlib import Path
folder, accuracy, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with open(folder.parent / "trace.txt", "a") as trace:
    trace.write(f"start {folder.name} {time.time()}\\n")
time.sleep(seconds)
if accuracy == "fail":
    sys.exit("the lights went out")
data = {"digest": "0f", "folder": "/home/me/images"}
result = {"accuracy": float(accuracy), "epochs": 1, "data": data}
(folder / "result.json").write_text(json.dumps(result))
with open(folder.parent / "trace.txt", "a") as trace:
    trace.write(f"end {folder.name} {time.time()}\\n")
"""


def fake(accuracy: object = 0.5, seconds: float = 0.0):  # type: ignore[no-untyped-def]
    def command(run: Run, folder: Path) -> list[str]:
        value = accuracy(run) if callable(accuracy) else accuracy
        return [sys.executable, "-c", TRAIN, str(folder), str(value), str(seconds)]

    return command


def small_study() -> Study:
    settings = Settings("digits", epochs=2, batch_size=16)
    return sample_efficiency(
        ["convit_nano", "deit_nano"], settings, fractions=[0.5, 1.0], seeds=[0, 1]
    )
