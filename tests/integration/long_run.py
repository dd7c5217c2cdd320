"""A thousand epochs in one run: does anything grow?

    python tests/integration/long_run.py --root /tmp/long --out results/long_run_cpu

Trains a tiny network on digits with everything switched on that happens once an epoch: TensorBoard,
an evaluation of the features every tenth epoch, val loss, a checkpoint every few seconds, loader
workers. Meanwhile it looks at the run and at all the processes that it started: memory, open
descriptors, threads, files in the run folder and in shared memory. What they were over the first
tenth after warming up is compared with the last tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.quick_run import Run  # noqa: E402

OPTIONS = (
    "data.subset='per_class=10'", "optim.batch_size=50", "run.tensorboard=true", "watch.every=10",
    "data.workers=1", "run.checkpoint_minutes=0.1",
)  # fmt: skip
EVERY = 2.0  # seconds between two samples
COUNTED = ("memory_mib", "descriptors", "threads", "processes", "shared_memory_files", "run_files")


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def of_its_own(pid: int) -> float:
    """Memory of a process in MiB, with its share of what it has in common with others."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    return 0


def descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def sample(run: Run) -> dict[str, float]:
    """What a run holds now.

    Returns:
        Epoch, seconds, and the figures of `COUNTED`, summed over its processes.
    """
    pids = family(run.process.pid)
    epochs = run.folder / "metrics.jsonl"
    text = epochs.read_text() if epochs.exists() else ""
    return {
        "epoch": text.count('"kind": "epoch"'),
        "seconds": round(time.monotonic(), 1),
        "memory_mib": round(sum(map(of_its_own, pids)), 1),
        "descriptors": sum(map(descriptors, pids)),
        "threads": sum(map(threads, pids)),
        "processes": len(pids),
        "shared_memory_files": len(os.listdir("/dev/shm")),
        "run_files": sum(1 for path in run.folder.rglob("*") if path.is_file()),
    }


def tenth(samples: Iterable[dict[str, float]], first: float, last: float) -> dict[str, float]:
    """Median of each figure over the samples of some epochs."""
    rows = [row for row in samples if first <= row["epoch"] < last]
    return {name: round(statistics.median(row[name] for row in rows), 1) for name in COUNTED}


def long_run(root: Path, epochs: int) -> dict[str, Any]:
    """Train, looking on.

    Returns:
        Figures early and late, the samples, and the run's end.
    """
    run = Run(root, f"optim.epochs={epochs}", *OPTIONS).start()
    samples = []
    try:
        while run.process.poll() is None:
            time.sleep(EVERY)
            samples.append(sample(run))
    finally:
        code = run.wait()
    assert code == 0, run.text()[-3000:]
    done = len(run.epochs())
    early, late = tenth(samples, 0.1 * epochs, 0.2 * epochs), tenth(samples, 0.9 * epochs, epochs)
    whole = [row for row in samples if row["epoch"] < done]
    longest = {name: max(row[name] for row in whole) for name in COUNTED}
    seconds = [row["seconds"] for row in samples]
    return {
        "exit_code": code, "epochs": done, "steps": run.epochs()[-1].get("step"),
        "seconds": round(seconds[-1] - seconds[0], 1), "samples": len(samples),
        "early": early, "late": late, "most": longest, "stray_files": run.stray_files(),
        "log_kib": round((run.folder / "log.txt").stat().st_size / 1024, 1),
        "series": {name: [row[name] for row in samples] for name in ("epoch", *COUNTED)},
    }  # fmt: skip


def write_result(found: dict[str, Any], out: str, root: Path) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = "python tests/integration/long_run.py " + " ".join(sys.argv[1:])
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    config = (root / "run" / "config.yaml").read_text()
    write_json(
        {"command": command, **about, **found, "config": config},
        record_folder(f"{out}_{date}") / "result.json",
    )
    names = {
        "memory_mib": "memory of all processes, MiB (proportional set size)",
        "descriptors": "open descriptors", "threads": "threads", "processes": "processes",
        "shared_memory_files": "files in /dev/shm, of the whole machine",
        "run_files": "files in the run folder",
    }  # fmt: skip
    shown = ("early", "late", "most")
    rows = [
        f"| {words} | " + " | ".join(f"{found[when][name]:g}" for when in shown) + " |"
        for name, words in names.items()
    ]
    text = (
        f"# {found['epochs']:,} epochs in one run\n\n`{command}`, {date}, commit "
        f"{about['commit']}.\n\n{about['hardware']['cpu']}, {about['hardware']['cores']} cores; "
        f"torch {about['versions']['torch']}. {found['seconds']:.0f} s, exit code "
        f"{found['exit_code']}, {found['samples']} samples, one every {EVERY:g} s.\n\nA tiny "
        "network on 100 digits, with TensorBoard, an evaluation of the features every tenth epoch, "
        "a checkpoint every six seconds and one loader worker. Medians over a tenth of the epochs "
        "each.\n\n| | second tenth | last tenth | most |\n|---|---:|---:|---:|\n"
        + "\n".join(rows)
        + f"\n\nFiles left over at the end: {len(found['stray_files'])}. log.txt has "
        f"{found['log_kib']:g} KiB.\n"
    )
    (record_folder(f"{out}_{date}") / "README.md").write_text(text)


def main() -> int:
    """Train, look, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--root", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    found = long_run(args.root, args.epochs)
    if args.out:
        write_result(found, args.out, args.root)
    for name in COUNTED:
        print(name, found["early"][name], found["late"][name], found["most"][name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
