"""Real runs in processes of their own, small enough to be killed many times."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "run_distributed_engines.py"
# A ConViT of 30 thousand weights on 1,000 digits of 8 x 8 pixels: ten steps an epoch.
TINY = """
config=convit_dino data=digits run=cpu trunk=convit_nano trunk.embed_dim=32 trunk.depth=3
trunk.num_gpsa_layers=2 trunk.patch_size=4 crops.global_size=8 crops.local_count=0
method.hidden_dim=32 method.bottleneck_dim=16 method.out_dim=64 optim.batch_size=100
run.threads=1 run.precision=fp32 data.workers=1 run.tensorboard=false watch.every=0 run.name=run
"""
CHECKPOINT = re.compile(r"checkpoint_e\d+_s(\d+)\.torch")


class Run:
    """One training run, its folder, and the process that is at it.

    Args:
        root: where the run folder goes.
        overrides: options beyond `TINY`.
    """

    def __init__(self, root: Path, *overrides: str) -> None:
        self.root = root
        self.folder = root / "run"
        self.checkpoints = self.folder / "checkpoints"
        self.arguments = [*TINY.split(), f"run.root={root}", *overrides]
        self.output = root / "output.txt"
        self.process: subprocess.Popen[bytes]

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(TOOL), *self.arguments]

    def start(self, *more: str, **environment: str) -> Run:
        """Start, with the output in a file; its own group, so that nothing is left behind."""
        self.root.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TORCHELASTIC"))}
        with open(self.output, "ab") as file:
            self.process = subprocess.Popen(
                [*self.command, *more],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**clean, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,
                cwd=self.root,
            )
        return self

    def wait(self, timeout: float = 900.0) -> int:
        """Its exit code; negative where a signal ended it."""
        try:
            return self.process.wait(timeout)
        finally:
            self.end()

    def complete(self, *more: str, **environment: str) -> int:
        return self.start(*more, **environment).wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill what is left of the process and those it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def beat(self, rank: int = 0) -> dict[str, Any]:
        """The last sign of life of a process; {} without one."""
        try:
            path = self.folder / "heartbeat" / f"rank_{rank:05d}.json"
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError):
            return {}

    def steps(self) -> int:
        """The step that the first process has reached, as of its last beat."""
        return int(self.beat().get("step", -1))

    def alive(self, rank: int) -> bool:
        """Whether the process that beat last is there still, and not of an earlier life."""
        process = self.beat(rank).get("pid")
        return process is not None and Path(f"/proc/{process}").exists()

    def reached(self, step: int) -> Callable[[], bool]:
        return lambda: self.steps() >= step

    def until(self, condition: Callable[[], bool], timeout: float = 400.0) -> None:
        """Wait for something to be so while the run goes on."""
        deadline = time.monotonic() + timeout
        while not condition():
            late = time.monotonic() > deadline
            if late or self.process.poll() is not None:
                self.end()
                raise AssertionError(f"{'late' if late else 'ended'}: {self.text()[-3000:]}")
            time.sleep(0.05)

    def saved(self) -> list[int]:
        """Steps of the checkpoints."""
        names = (CHECKPOINT.fullmatch(path.name) for path in self.checkpoints.glob("*"))
        return sorted(int(name[1]) for name in names if name)

    def epochs(self) -> list[dict[str, Any]]:
        """What was recorded of each epoch."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["kind"] == "epoch"]

    def losses(self) -> list[float]:
        return [line["loss"] for line in self.epochs()]

    def stray_files(self) -> list[str]:
        """Files that no run should leave."""
        return sorted(
            path.name
            for path in self.folder.rglob("*")
            if "partial" in path.name
            or path.suffix == ".tmp"
            or (path.suffix == ".sha256" and not path.with_suffix(".torch").exists())
        )
