"""``bench all``: every benchmark, one after another, within a time limit."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from convit_ssl.bench.builds import ROOT
from convit_ssl.children import safe_command
from convit_ssl.errors import UserError

# By name of the file: the benchmark and its options, the quickest first. Small enough to fit into
# some minutes of two cores each; on a GPU the sizes of its own defaults.
ON_CPU: Mapping[str, str] = {
    "startup": "startup --repeats 3",
    "accumulate": "accumulate --methods simclr --sizes nano --images 64 --global-side 32"
    " --repeats 3",
    "step": "step --sizes nano --global-side 64 --local-side 32 --local-crops 4 --out-dim 4096"
    " --repeats 3",
    "threads": "threads --seconds 2 --repeats 2 --neighbours 0 1 4",
    "linear": "linear",
    "builds": "builds --against 96c55e9 --methods simclr --data textures --epochs 3 --seeds 0 1"
    " --set data.subset=fraction=0.25,seed=0",
    "data": "data --repeats 3",
    "formats": "data --formats --repeats 3",
    "model": "model --sizes nano tiny --sides 64 224 --images 4 --modes training --repeats 3",
    "scaling": "scaling --sizes nano --sides 96 224 --processes 1 2 --repeats 3",
}
ON_GPU: Mapping[str, str] = {
    "startup": "startup --repeats 3",
    "model": "model --sizes small --sides 224 384 --images 256 --dtype bf16 --modes training",
    "compiled": "model --sizes small --sides 224 --images 256 --dtype bf16 --modes training"
    " --compile --contenders ours vit",
    "step": "step --sizes small --images 64 --dtype bf16",
    "accumulate": "accumulate --methods simclr --sizes small --images 1024 --dtype bf16",
    "scaling": "scaling --sizes small --images 64 --dtype bf16",
}
OWN_DEVICE = (
    "startup",
    "data",
    "formats",
    "threads",
    "linear",
    "builds",
)  # benchmarks of the CPU's part
TIMED_OUT = "stopped at the time limit"


def commands(device: str, out: Path) -> dict[str, list[str]]:
    """The command line of each benchmark, by its name."""
    found = {}
    for name, words in (ON_GPU if device.startswith("cuda") else ON_CPU).items():
        if name == "builds" and not (ROOT / ".git").exists():
            continue  # an installed package knows no earlier commit
        line = [sys.executable, "-m", "convit_ssl.cli.main", "bench", *shlex.split(words)]
        line += ["--json", str(out / f"{name}.json"), "--markdown", str(out / f"{name}.md")]
        found[name] = line if name in OWN_DEVICE else [*line, "--device", device]
    return found


def run_all(lines: Mapping[str, Sequence[str]], out: Path, minutes: float) -> dict[str, str]:
    """Run what the time allows.

    Args:
        lines: command lines by name, in their order.
        out: folder of the logs.
        minutes: of all together. One that is still running then is stopped; what it had written
            to its JSON file stays.

    Returns:
        What came of each, in words.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    end = time.monotonic() + 60 * minutes
    outcomes = {}
    for name, line in lines.items():
        left = end - time.monotonic()
        if left <= 0:
            outcomes[name] = "not run: the time was up"
            continue
        print(f"{name}: {shlex.join(line[3:])}", flush=True)
        started = time.monotonic()
        outcomes[name] = _run(line, out / f"{name}.log", left)
        print(f"{name}: {outcomes[name]}, {time.monotonic() - started:.0f} s", flush=True)
    return outcomes


def _run(line: Sequence[str], log: Path, seconds: float) -> str:
    with log.open("w", encoding="utf-8") as file:
        # A group of its own, for what it starts itself.
        process = subprocess.Popen(
            safe_command(line), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"failed with exit code {code}, see {log}" if code else "done"
