"""``bench startup``: from the command to the first training step, and what it is spent on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
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
    "Seconds from the start of the process to the end of its first optimiser step, from the "
    "run's `result.json`: options, data, network, loaders and one step. Imports: the time of "
    "each package's own modules under `python -X importtime`, in a separate run that this "
    "slows down; the rest is the difference from that run's first step. PyTorch's share "
    "includes its compiler, which torchvision imports. Import of PyTorch alone: a Python "
    "process that does nothing else; these alternate with the runs. CPU time covers the "
    "process and its threads, and depends less on the load of the machine.",
]


def measure(repeats: int, experiment: Sequence[str] = EXPERIMENT) -> dict[str, Any]:
    """Run an experiment's first epoch `repeats` times, and once more with its imports timed."""
    torch_alone, figures = [], []
    for _ in range(repeats):  # in turns, so that a busy machine slows both
        torch_alone.append(_import_torch())
        figures.append(_first_step(experiment, [])[0])
    watched, lines = _first_step(experiment, ["-X", "importtime"])
    watched_s = watched["first_step_s"]
    imports = group_imports(lines)
    return {
        "experiment": list(experiment),
        "rows": {
            "first_step_s": [found["first_step_s"] for found in figures],
            "first_step_cpu_s": [found["first_step_cpu_s"] for found in figures],
            "torch_s": [found["seconds"] for found in torch_alone],
            "torch_cpu_s": [found["cpu"] for found in torch_alone],
            "watched_first_step_s": watched_s,
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


def _beyond_torch(rows: dict[str, Any]) -> list[list[str]]:
    """What a Python that imports PyTorch alone takes, and the first step beyond it."""
    lines = []
    for kind, unit in (("", ""), ("cpu_", ", CPU time")):
        alone, first = min(rows[f"torch_{kind}s"]), min(rows[f"first_step_{kind}s"])
        lines.append([f"import of PyTorch alone, the fastest{unit}", f"{alone:.2f}"])
        lines.append([f"first step beyond it{unit}", f"{first - alone:.2f}"])
    return lines


def _import_torch() -> dict[str, float]:
    """Seconds of a Python that imports PyTorch and ends, and of its CPU time."""
    code = "import time, torch; print(time.process_time())"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"seconds": time.perf_counter() - began, "cpu": float(done.stdout)}


def _first_step(experiment: Sequence[str], python: Sequence[str]) -> tuple[dict[str, float], str]:
    with tempfile.TemporaryDirectory(prefix="convit_ssl-startup-") as folder:
        command = [sys.executable, *python, "-m", "convit_ssl.cli.main", "train", *experiment]
        command += [f"run.dir={folder}/run", "optim.epochs=1"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if "import time:" not in line][-1:]
            raise UserError(f"{' '.join(experiment)} did not run: {''.join(last)}")
        result = RunFolder(Path(folder, "run")).read_result()
        names = ("first_step_s", "first_step_cpu_s")
        return {name: float(result["figures"][name]) for name in names}, done.stderr


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
    if "torch_s" in rows:
        lines[2:2] = _beyond_torch(rows)
    rest = watched - sum(rows["imports_s"].values())
    lines.append(["- options, data, network, loaders, one step", f"{max(rest, 0.0):.2f}"])
    return f"Start-up: {' '.join(comparison['experiment'])}", ("", "seconds"), lines
