"""How far the estimate of a run's memory is from what the run then takes.

    python tools/memory_estimate.py --out results/memory_estimate_cpu_DATE

Each case is planned, its estimate noted, and then trained in a process of its own for a few steps,
with a checkpoint at its end; those of a newcomer leave threads, precision and evaluations as they
are, and end in a verdict. What it took is the most that all its processes held at one time, with
libraries of the training processes alone, and what the kernel's record of a peak is above that.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.engines.memory import estimate as memory
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.evaluation.results import commit, hardware, now, record_folder, versions

COMMON = (
    *("run=cpu", "run.threads=1", "scale_to_data=false", "data=digits"),
    *("optim.epochs=1", "watch.every=0"),
)
# Of somebody with pictures in three folders, who chooses little.
NEWCOMER = ("run=cpu", "data=folder", "data.holdout=0.2", "optim.epochs=2", "trunk=convit_nano")
PICTURES, PICTURE_SIDE = 300, 300
DIGITS = 1000
OWN = ("Pss_Anon:", "Pss_Shmem:")  # of smaps_rollup: a process's share of memory without a file
MIDDLE = ("crops.global_size=32", "trunk.patch_size=4")
NANO = ("trunk=convit_nano", *MIDDLE, "run.precision=fp32", "data.workers=1")
EIGHT = ("crops.local_size=16", "crops.local_count=6")
CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DINO nano, 2 views of 32 px and 6 of 16, 65,536 outputs",
     ("config=convit_dino", *NANO, *EIGHT, "optim.batch_size=32")),
    ("DINO nano, 4,096 outputs, bf16",
     ("config=convit_dino", *NANO, *EIGHT, "optim.batch_size=64", "method.out_dim=4096",
      "run.precision=bf16")),
    ("the same, four loader workers",
     ("config=convit_dino", *NANO, *EIGHT, "optim.batch_size=64", "method.out_dim=4096",
      "run.precision=bf16", "data.workers=4")),
    ("SimCLR tiny, 64 px",
     ("config=convit_simclr", "trunk=convit_tiny", "crops.global_size=64", "trunk.patch_size=8",
      "optim.batch_size=32", "run.precision=fp32", "data.workers=1")),
    ("SimCLR nano, 480 images in 4 parts",
     ("config=convit_simclr", *NANO, "optim.batch_size=480", "optim.accumulate=4")),
    ("MoCo v3 tiny, bf16",
     ("config=convit_moco_v3", *NANO[1:], "trunk=convit_tiny", "optim.batch_size=32",
      "run.precision=bf16")),
    ("Barlow Twins nano, its projector",
     ("config=convit_barlow_twins", *NANO, "optim.batch_size=64", "method.out_dim=2048",
      "method.hidden_dim=2048")),
    ("SwAV nano, 8 views", ("config=convit_swav", *NANO, *EIGHT, "optim.batch_size=64")),
    ("VICReg small", ("config=convit_vicreg", "trunk=convit_small", *NANO[1:],
                      "optim.batch_size=16", "method.out_dim=2048", "method.hidden_dim=2048")),
    ("iBOT nano", ("config=convit_ibot", *NANO, *EIGHT, "optim.batch_size=32",
                   "method.out_dim=4096")),
    ("LeJEPA nano, bf16", ("config=convit_lejepa", *NANO, "optim.batch_size=64",
                           "run.precision=bf16")),
    ("DIET nano", ("config=convit_diet", *NANO, "optim.batch_size=64")),
    ("with labels, ConViT-small", ("config=convit_supervised", "trunk=convit_small", *NANO[1:],
                                   "optim.batch_size=32")),
    ("SimCLR base, gradient checkpointing",
     ("config=convit_simclr", "trunk=convit_base", "crops.global_size=64", "trunk.patch_size=16",
      "optim.batch_size=16", "run.precision=fp32", "run.grad_checkpointing=true",
      "data.workers=1")),
    ("SimCLR, torchvision's ResNet-50",
     ("config=convit_simclr", "trunk=resnet50", "crops.global_size=64", "optim.batch_size=16",
      "run.precision=fp32", "data.workers=1")),
    ("newcomer: SimCLR nano, 224 px", ("config=convit_simclr", *NEWCOMER)),
    ("the same, fp32", ("config=convit_simclr", *NEWCOMER, "run.precision=fp32")),
    ("the same, one thread, bf16", ("config=convit_simclr", *NEWCOMER, "run.threads=1")),
    ("the same, one thread, fp32", ("config=convit_simclr", *NEWCOMER, "run.threads=1",
                                    "run.precision=fp32")),
    ("newcomer: two processes", ("config=convit_simclr", *NEWCOMER, "run.processes=2")),
    ("newcomer: DINO, 2 views of 224 px and 6 of 96",
     ("config=convit_dino", *NEWCOMER, "crops.global_size=224", "crops.local_count=6")),
    ("newcomer: SwAV", ("config=convit_swav", *NEWCOMER)),
    ("newcomer: SimCLR tiny, 96 px", ("config=convit_simclr", *NEWCOMER[:-1], "trunk=convit_tiny",
                                      "crops.global_size=96")),
    ("newcomer: digits", ("config=convit_dino", "run=cpu", "data=digits", "trunk=convit_nano",
                          "optim.epochs=2")),
)  # fmt: skip


def main() -> int:
    """Measure every case, or those whose name has a word; 1 where one is off by more than 25 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only cases whose name contains one of these"
    )
    parser.add_argument("--seconds", type=float, default=200, help="time limit per case in seconds")
    parser.add_argument("--out", metavar="results/NAME", help="folder to write the result to")
    args = parser.parse_args()
    place = record_folder(Path(args.out)) if args.out else None
    known = _known(place)
    for name, words in CASES:
        if any(part in name for part in args.only) and name not in known:
            known[name] = _measure(name, words, args.seconds)
            print(json.dumps(known[name]), flush=True)
            if place is not None:
                _write(place, _ordered(known))
    rows = _ordered(known)
    print(_page(rows))
    return int(any(abs(row["ratio"] - 1) > 0.25 for row in rows))


def _known(place: Path | None) -> dict[str, dict[str, Any]]:
    """Rows that this commit has measured already: stopped, the same command resumes."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((place / "result.json").read_text()) if place is not None else {}
        if found.get("commit") == commit():
            return {row["case"]: row for row in found["rows"]}
    return {}


def _ordered(known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [known[name] for name, _ in CASES if name in known]


def _write(place: Path, rows: list[dict[str, Any]]) -> None:
    about = {
        "commit": commit(),
        "time": now(),
        "versions": versions(),
        "hardware": hardware(),
    }
    (place / "result.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    (place / "README.md").write_text(_page(rows) + "\n")


def _measure(name: str, words: tuple[str, ...], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        options = [*_options(words, Path(folder)), f"run.root={folder}"]
        plan = make_plan(compose_experiment(options))
        found = memory.estimate(plan)
        assert found is not None, name
        processes = plan.placement.processes
        took, watched, whole = _peak(options, seconds, processes)
    estimated = processes * (found.host + found.workers)
    return {
        "case": name,
        "options": " ".join(words),
        "processes": processes,
        "precision": plan.options["run"]["precision"],
        "estimate_mib": round(estimated),
        "took_mib": round(took),
        "ratio": round(estimated / took, 3),
        "seconds": round(watched, 1),
        "whole": whole,
        "parts": {key: round(value) for key, value in found.parts.items()},
    }


def _options(words: tuple[str, ...], folder: Path) -> list[str]:
    """Of a case: a few steps of digits, or all that a newcomer's command does."""
    if "data=folder" in words:
        return [*words, f"data_dir={_pictures(folder / 'pictures')}"]
    if "run=cpu" in words:
        return list(words)
    batch = next(int(w.partition("=")[2]) for w in words if w.startswith("optim.batch_size="))
    share = 3 * batch / DIGITS
    few = [f"data.subset=fraction={share:.3f},seed=0"] if share < 1 else []
    return [*COMMON, *words, *few]


def _pictures(folder: Path) -> Path:
    """Noise of three grains, a folder each."""
    draws = np.random.default_rng(0)
    for grain in (10, 25, 60):
        (folder / str(grain)).mkdir(parents=True)
        for number in range(PICTURES // 3):
            noise = Image.fromarray(draws.integers(0, 256, (grain, grain, 3), np.uint8))
            noise.resize((PICTURE_SIDE, PICTURE_SIDE)).save(folder / str(grain) / f"{number}.jpg")
    return folder


def _peak(options: list[str], seconds: float, processes: int) -> tuple[float, float, bool]:
    """MiB at the peak of a run, how long it was watched, and whether it came to its end."""
    command = [sys.executable, "-m", "convit_ssl.cli.main", "train", *options]
    nowhere = subprocess.DEVNULL
    run = subprocess.Popen(command, start_new_session=True, stdout=nowhere, stderr=nowhere)
    held: list[float] = []
    resident: dict[int, float] = {}
    peaks: dict[int, float] = {}
    begun, asked = time.monotonic(), False
    while run.poll() is None:
        trainers = [run.pid] if processes == 1 else _children(run.pid)
        for pid in trainers:
            resident[pid] = max(resident.get(pid, 0.0), _kib(pid, "status", "VmRSS:"))
            peaks[pid] = max(peaks.get(pid, 0.0), _kib(pid, "status", "VmHWM:"))
        largest = sorted(peaks, key=lambda pid: -peaks[pid])[:processes]
        held.append(_held(_family(run.pid), largest))
        if time.monotonic() - begun > seconds and not asked:
            os.kill(run.pid, signal.SIGTERM)  # writes its checkpoint and ends
            asked = True
        time.sleep(0.1)
    if run.returncode not in (0, 143):
        raise SystemExit(f"{' '.join(options)} ended with exit code {run.returncode}")
    between = sum(peaks[pid] - resident[pid] for pid in largest)
    return (lasting_peak(held) + between) / 1024, time.monotonic() - begun, not asked


def _held(family: list[int], trainers: list[int]) -> float:
    """KiB that a run holds now; a page that several processes share counts once."""
    own = sum(_kib(pid, "smaps_rollup", name) for pid in family for name in OWN)
    return own + sum(_kib(pid, "status", "RssFile:") for pid in trainers)


def lasting_peak(held: list[float]) -> float:
    """The most that two samples in a row reach.

    The processes are read one after the other: where one forks or ends meanwhile, a page may count
    twice in one sample.
    """
    return max(map(min, itertools.pairwise(held)), default=0.0)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        found.append(one := todo.pop())
        todo += _children(one)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


def _kib(pid: int, file: str, field: str) -> float:
    """A number of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(field)), 0.0)


def _page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# The estimate of a run's memory, and what the run then took",
        "",
        "`python tools/memory_estimate.py`: two or three steps in one thread on a CPU, with "
        "a checkpoint at the end. Those of a newcomer are whole: threads are chosen by trial, "
        "features are evaluated and judged. Taken is the most that all processes held at one "
        "time: what Linux says of their own pages, each counted once (Pss), the libraries of "
        "training processes, and how far the record of their peak (VmHWM) is above the samples.",
        "",
        "| run | estimate, MiB | taken, MiB | ratio |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['case']} | {row['estimate_mib']:,} | {row['took_mib']:,} | {row['ratio']:.2f} |"
        for row in rows
    ]
    stopped = [row["case"] for row in rows if not row["whole"]]
    if stopped:
        lines += ["", f"Stopped before its end, on a busy machine: {'; '.join(stopped)}."]
    ratios = [row["ratio"] for row in rows]
    if ratios:
        within = sum(abs(ratio - 1) <= 0.25 for ratio in ratios)
        lines += ["", f"{within} of {len(rows)} are within 25 %: from {min(ratios):.2f} to "
                      f"{max(ratios):.2f} of what was taken."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
