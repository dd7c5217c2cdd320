"""``bench startup``: from the command to the first training step, and what it is spent on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.bench.report import TableOf
from convit_ssl.errors import UserError
from convit_ssl.runs import RunFolder

EXPERIMENT = ("config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano")
# Which packages are imported for whose sake.
GROUPS = {
    "PyTorch": ("torch", "torchgen", "sympy", "mpmath", "numpy"),
    "torchvision": ("torchvision",),
    "VISSL": ("vissl", "classy_vision", "fairscale", "fvcore", "iopath", "scipy", "tensorboard"),
    "Hydra": ("hydra", "omegaconf", "antlr4", "yaml"),
    "convit_ssl": ("convit_ssl",),
}
OTHERS = "other packages"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
NOTES = [
    "Seconds from the start of the process until its first optimiser step is done, as the run's "
    "`result.json` has them: options, data, network, loaders and one step. Imports: the time that "
    "each package's own modules took under `python -X importtime`, in a run of its own, which is "
    "slower for it; the rest is the difference to that run's first step. PyTorch's share has its "
    "compiler in it, which torchvision and the optimisers import."
]


def measure(repeats: int, experiment: Sequence[str] = EXPERIMENT) -> dict[str, Any]:
    """Run an experiment's first epoch `repeats` times, and once more with its imports timed."""
    seconds = [_first_step(experiment, [])[0] for _ in range(repeats)]
    watched, lines = _first_step(experiment, ["-X", "importtime"])
    imports = group_imports(lines)
    return {
        "experiment": list(experiment),
        "rows": {
            "first_step_s": seconds,
            "watched_first_step_s": watched,
            "imports_s": imports,
            "modules": len(_LINE.findall(lines)),
        },
    }


def group_imports(lines: str) -> dict[str, float]:
    """Seconds of each group's own modules, from what ``python -X importtime`` prints."""
    owner = {package: group for group, packages in GROUPS.items() for package in packages}
    spent = {**dict.fromkeys(GROUPS, 0.0), OTHERS: 0.0}
    for microseconds, module in _LINE.findall(lines):
        spent[owner.get(module.split(".")[0], OTHERS)] += int(microseconds) / 1e6
    return {group: round(value, 3) for group, value in spent.items()}


def _first_step(experiment: Sequence[str], python: Sequence[str]) -> tuple[float, str]:
    with tempfile.TemporaryDirectory(prefix="convit_ssl-startup-") as folder:
        command = [sys.executable, *python, "-m", "convit_ssl.cli.main", "train", *experiment]
        command += [f"run.dir={folder}/run", "optim.epochs=1"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if "import time:" not in line][-1:]
            raise UserError(f"{' '.join(experiment)} did not run: {''.join(last)}")
        result = RunFolder(Path(folder, "run")).read_result()
        return float(result["figures"]["first_step_s"]), done.stderr


def table(comparison: dict[str, Any]) -> TableOf:
    """The first step, and the imports of a watched run."""
    rows = comparison["rows"]
    seconds, watched = sorted(rows["first_step_s"]), rows["watched_first_step_s"]
    lines = [
        ["first step, the fastest run", f"{seconds[0]:.2f}"],
        ["first step, the middle run", f"{seconds[len(seconds) // 2]:.2f}"],
        ["first step with imports timed", f"{watched:.2f}"],
    ]
    lines += [[f"- importing {name}", f"{spent:.2f}"] for name, spent in rows["imports_s"].items()]
    rest = watched - sum(rows["imports_s"].values())
    lines.append(["- options, data, network, loaders, one step", f"{max(rest, 0.0):.2f}"])
    return f"Start-up: {' '.join(comparison['experiment'])}", ("", "seconds"), lines
