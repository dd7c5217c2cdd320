"""What checkpoints cost a run, and what two processes cost in place of one.

    python tests/integration/overhead.py --root /tmp/overhead --out results/overhead_cpu

Trains the same small run in turns: alone and without checkpoints, with one every few seconds, and
in two processes that share the batch. CPU time tells what the work costs, whatever else the
machine does; the clock tells what a person waits, where two cores are free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FIRST = 10  # steps that wait for loaders
OFTEN = 6.0  # seconds between checkpoints where there are some
USUAL = 600.0  # seconds, the default of run.checkpoint_minutes
WAYS = {
    "one process": ("run.processes=1", "run.checkpoint_minutes=600"),
    "one process, checkpoints": ("run.processes=1", f"run.checkpoint_minutes={OFTEN / 60}"),
    "two processes": ("run.processes=2", "run.checkpoint_minutes=600"),
}
OPTIONS = (
    "config=convit_dino", "data=digits", "trunk=convit_nano", "run=cpu", "optim.batch_size=100",
    "run.threads=1", "run.tensorboard=false", "watch.every=0", "data.workers=1", "run.name=run",
    "run.precision=fp32",
)  # fmt: skip


def watch(record: Path) -> None:
    """Let this process note both clocks after each step, and its checkpoints."""
    from convit_ssl.engines.callbacks import heartbeat
    from convit_ssl.engines.checkpoints import saving

    plain_step, plain_save = heartbeat.HeartbeatHook.on_step, saving.CheckpointHook._save
    plain_write = saving.CheckpointHook._write

    def note(kind: str, *values: float) -> None:
        with open(record / f"{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps([kind, *values]) + "\n")

    def on_step(hook: Any, task: Any) -> None:
        plain_step(hook, task)
        note("step", time.perf_counter(), time.process_time())

    def save(hook: Any, *args: Any, **more: Any) -> None:
        began = time.perf_counter(), time.thread_time()
        plain_save(hook, *args, **more)
        note("in the step", time.perf_counter() - began[0], time.thread_time() - began[1])

    def write(hook: Any, name: str, *args: Any) -> None:
        began = time.perf_counter(), time.thread_time()
        plain_write(hook, name, *args)
        size = (hook.folder / name).stat().st_size
        note("writing", time.perf_counter() - began[0], time.thread_time() - began[1], size)

    heartbeat.HeartbeatHook.on_step = on_step  # type: ignore[method-assign]
    saving.CheckpointHook._save = save  # type: ignore[method-assign]
    saving.CheckpointHook._write = write  # type: ignore[method-assign]


if "OVERHEAD_RECORD" in os.environ:  # also in the processes that the run starts
    import convit_ssl.adapters  # noqa: F401

    watch(Path(os.environ["OVERHEAD_RECORD"]))


def run(way: str, root: Path, epochs: int) -> dict[str, Any]:
    """One run; seconds of each step by both clocks, and its checkpoints."""
    record = root / "record"
    record.mkdir(parents=True)
    command = [sys.executable, __file__, *OPTIONS, *WAYS[way]]
    command += [f"optim.epochs={epochs}", f"run.root={root}"]
    environment = {**os.environ, "OVERHEAD_RECORD": str(record)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    processes = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in record.glob("*.jsonl")
    ]
    steps = [[line[1:] for line in lines if line[0] == "step"][FIRST:] for lines in processes]
    count = len(steps[0]) - 1
    checkpoints = {
        kind: [line[1:] for lines in processes for line in lines if line[0] == kind]
        for kind in ("in the step", "writing")
    }
    return {
        "way": way,
        "steps": count,
        "clock_ms": 1e3 * (steps[0][-1][0] - steps[0][0][0]) / count,
        "cpu_ms": 1e3 * sum(times[-1][1] - times[0][1] for times in steps) / count,
        **checkpoints,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the shares they make.

    Returns:
        MiB, milliseconds, shares of 1, and milliseconds of a step by way.
    """

    def median(way: str, key: str) -> float:
        return statistics.median(run[key] for run in runs if run["way"] == way)

    saving = [run for run in runs if run["way"] == "one process, checkpoints"]
    in_step = statistics.median(v[0] for run in saving for v in run["in the step"])
    write = statistics.median(v[0] for run in saving for v in run["writing"])
    cpu = statistics.median(v[1] for run in saving for v in run["in the step"])
    cpu += statistics.median(v[1] for run in saving for v in run["writing"])
    one, two = "one process", "two processes"
    return {
        "checkpoint_mib": statistics.median(v[2] for r in saving for v in r["writing"]) / 2**20,
        "checkpoints": sum(len(run["writing"]) for run in saving),
        "in_step_ms": 1e3 * in_step,
        "writing_ms": 1e3 * write,
        "cpu_ms_each": 1e3 * cpu,
        "waited_share_often": in_step / OFTEN,
        "waited_share_usual": in_step / USUAL,
        "cpu_share_often": cpu / OFTEN,
        "cpu_share_usual": cpu / USUAL,
        "step_cpu_ms": {way: median(way, "cpu_ms") for way in WAYS},
        "step_clock_ms": {way: median(way, "clock_ms") for way in WAYS},
        "two_processes_cpu": median(two, "cpu_ms") / median(one, "cpu_ms") - 1,
        "two_processes_speed": median(one, "clock_ms") / median(two, "clock_ms"),
    }


def percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def write_result(found: dict[str, Any], runs: list[dict[str, Any]], out: str) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = "python tests/integration/overhead.py " + " ".join(sys.argv[1:])
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    load = round(os.getloadavg()[0], 1)
    about |= {"load_average": load, "options": OPTIONS, "ways": WAYS}
    write_json(
        {"command": command, **about, **found, "runs": runs},
        record_folder(f"{out}_{date}") / "result.json",
    )
    rounds = len(runs) // len(WAYS)
    usual, often = (
        [percent(found[f"{what}_share_{when}"]) for what in ("waited", "cpu")]
        for when in ("usual", "often")
    )
    lines = [
        "# What checkpoints and a second process cost",
        "",
        f"`{command}`, {date}, commit {about['commit']}.",
        "",
        f"{about['hardware']['cpu']}, {about['hardware']['cores']} cores, load {load} at the end; "
        f"torch {about['versions']['torch']}. Medians of {rounds} rounds in turns; each run has "
        f"{runs[0]['steps']} measured steps of `{' '.join(OPTIONS)}`.",
        "",
        "Expected: a step waits only for the copy of the state, far below 1 % of the time between "
        "two checkpoints; two processes cost some CPU time more than one, for exchanging gradients "
        "and for what each does by itself.",
        "",
        "| a checkpoint | |",
        "|---|---:|",
        f"| size | {found['checkpoint_mib']:.1f} MiB |",
        f"| the step waits for the copy | {found['in_step_ms']:.1f} ms |",
        f"| the thread writes, beside training | {found['writing_ms']:.0f} ms |",
        f"| CPU time, both | {found['cpu_ms_each']:.0f} ms |",
        f"| one every {OFTEN:g} s: time that waits | {often[0]} |",
        f"| and CPU time | {often[1]} |",
        f"| one every {USUAL / 60:g} min: time that waits | {usual[0]} |",
        f"| and CPU time | {usual[1]} |",
        "",
        "| a step of 100 images | CPU time, all processes | clock |",
        "|---|---:|---:|",
        *(
            f"| {way} | {found['step_cpu_ms'][way]:.1f} ms | {found['step_clock_ms'][way]:.1f} ms |"
            for way in WAYS
        ),
        "",
        f"Two processes take {found['two_processes_cpu']:+.1%} CPU time for the same images, and "
        f"are {found['two_processes_speed']:.2f} times as fast by the clock; other work on the "
        "machine lowers the second figure.",
        "",
    ]
    (record_folder(f"{out}_{date}") / "README.md").write_text("\n".join(lines))


def main() -> int:
    if "OVERHEAD_RECORD" in os.environ:
        from convit_ssl.cli.main import run_command

        return run_command("train", sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="of ten steps")
    parser.add_argument("--root", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    root = args.root.resolve()
    runs = []
    for number in range(args.rounds):
        for position, way in enumerate(WAYS):
            runs.append(run(way, root / f"{number}_{position}", args.epochs))
            print(f"{way}: {runs[-1]['cpu_ms']:.1f} ms CPU a step", flush=True)
    found = summary(runs)
    if args.out:
        write_result(found, runs, args.out)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
