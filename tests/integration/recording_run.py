"""A training command that also writes down which images each step learned from.

``RECORD`` names the folder for that, and ``PACE`` the seconds that each step takes longer, so that
a test which wants to disturb a run is not too late on a fast machine. ``STOP_AT`` is the step at
which the process asks itself to stop, as a scheduler would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import convit_ssl.adapters  # noqa: F401
from convit_ssl.cli.main import run_command
from convit_ssl.engines.callbacks import heartbeat

_plain = heartbeat.HeartbeatHook.on_step


def _recording(hook: Any, task: Any) -> None:
    _plain(hook, task)
    time.sleep(float(os.environ.get("PACE", "0")))
    if task.train and task.iteration == int(os.environ.get("STOP_AT", "-1")):
        os.kill(os.getpid(), signal.SIGUSR1)
    if "RECORD" not in os.environ:
        return
    indices = [int(index) for index in task.last_batch.sample["data_idx"]]
    path = Path(os.environ["RECORD"]) / f"{os.getpid()}.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        line = {"step": task.iteration, "epoch": task.train_phase_idx, "images": indices}
        file.write(json.dumps(line) + "\n")


heartbeat.HeartbeatHook.on_step = _recording  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:]))
