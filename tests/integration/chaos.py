"""Kill a run of one, two or four processes again and again, and see what is left of it.

    python tests/integration/chaos.py --kills 100 --processes 2 --root /tmp/k --out results/chaos_2

Each life is the launcher of a training command, forked from a process that has imported everything,
so that it costs a second or two; so are the processes that it starts. They meet, train, save and
are killed as any others: half of the time while a checkpoint is being written, else at a random
moment, from before the first step on. What is killed is everything at once, the launcher alone, one
process alone, or one after the other. In a third of the lives the clock jumps. With --out the
report is written too, under that name and today's date. Stopped, the same command resumes: the
count so far is in the folder of --root.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import mmap
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.integration.chaos_life import (  # noqa: E402
    ALL,
    BY_TURNS,
    FIRST,
    LATEST,
    LAUNCHER,
    NUMBER,
    RANK,
    RANKS,
    RECORD,
    STEPS,
    Life,
    read,
    real_time,
)  # fmt: skip
from tests.quick_run import Run  # noqa: E402

INTERVAL = 2.0  # seconds between checkpoints
PR_SET_CHILD_SUBREAPER = 36


def longest_step(board: mmap.mmap, first: int, last: int) -> float:
    """Seconds of the longest step between two: a busy machine stops a run for as long."""
    times = [read(board, STEPS + step)[0] for step in range(first, last + 1)]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def first_step_after(board: mmap.mmap, began: float) -> bool:
    return read(board, LATEST)[0] > began


def writing(run: Run) -> bool:
    return any(run.checkpoints.glob(".*.partial-*")) if run.checkpoints.is_dir() else False


def kill_at(life: Life, run: Run, board: mmap.mmap, kind: str, interval: float) -> bool:
    """Wait for the moment; False where the run ended by itself before it came."""
    if kind == "starting":
        deadline, condition = real_time() + random.uniform(0, 2.0), None
    else:
        while not first_step_after(board, life.began):
            if not life.running():
                return False
            time.sleep(0.005)
        saving = kind == "writing"
        chosen = real_time() + random.uniform(0, 1.5 * interval)
        deadline = chosen + (20.0 if saving else 0.0)
        condition = (lambda: real_time() > chosen and writing(run)) if saving else None
    while real_time() < deadline and not (condition is not None and condition()):
        if not life.running():
            return False
        time.sleep(0.0005)
    return True


def saved_step(run: Run) -> int:
    """The step that the next life begins after; 0 before the first checkpoint."""
    from convit_ssl.engines.checkpoints.files import find_checkpoint

    found = find_checkpoint(run.checkpoints)
    return int(found.path.stem.rpartition("_s")[2]) if found is not None else 0


def count_kill(report: dict[str, Any], life: Life, run: Run, before: int, saved: int) -> int:
    """Add to the report what a kill cost.

    Args:
        report: counts so far.
        life: that was killed.
        run: its folder.
        before: the step saved when the life began.
        saved: and now.

    Returns:
        The last step of the life.
    """
    report["kills"] += 1
    report["clock_jumps"] += bool(life.jump)
    began, first = read(life.board, FIRST)
    if began > life.began:
        report["lives_that_stepped"] += 1
        report["began_elsewhere"] += first != before + 1
    when, step = read(life.board, LATEST)
    if when > life.began:
        behind = read(life.board, STEPS + saved)[0] if saved else when
        # A life that had not saved yet went back to where it began, not further; what it needed
        # to start is no work.
        report["lost_seconds"].append(round(max(when - max(behind, began), 0.0), 3))
        report["longest_step"].append(round(longest_step(life.board, max(saved, first), step), 3))
        report["lost_steps"].append(step - saved)
    report["most_files"] = max(report["most_files"], len(list(run.checkpoints.glob("*"))))
    return step


def chaos(
    root: Path,
    kills: int,
    seed: int,
    epochs: int,
    interval: float = INTERVAL,
    processes: int = 2,
) -> dict[str, Any]:
    """Kill as often, let it finish, and report.

    Returns:
        Kills by moment and by what was killed, the work lost at each in seconds and steps, files
        left over.
    """
    import convit_ssl.adapters  # noqa: F401
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan
    from convit_ssl.engines.options.write import write_config
    from convit_ssl.evaluation.results import write_json

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    run = Run(
        root,
        f"optim.epochs={epochs}",
        f"run.processes={processes}",
        f"run.checkpoint_minutes={interval / 60}",
        "data.workers=1",
    )
    plan = make_plan(compose_experiment(run.arguments))
    write_config(plan)
    import vissl.trainer  # noqa: F401 once, for all lives

    board = mmap.mmap(-1, RECORD.size * (STEPS + 10 * epochs + 10))
    numbers = mmap.mmap(-1, NUMBER.size * RANKS)
    report: dict[str, Any] = {"kills": 0, "kinds": {}, "victims": {}, "clock_jumps": 0}
    report |= {"longest_step": [], "lost_seconds": [], "lost_steps": [], "seconds_to_leave": []}
    report |= {"most_files": 0, "lives_that_stepped": 0, "began_elsewhere": 0, "ended_early": 0}
    count = root / "count.json"
    if count.exists():
        report = json.loads(count.read_text())
    random.seed(seed + report["kills"])
    saved = saved_step(run)
    while report["kills"] < kills:
        kind = random.choice(["starting", "training", "writing", "writing"])
        victim = random.choice([ALL, LAUNCHER, RANK, BY_TURNS] if processes > 1 else [ALL, RANK])
        life = Life(plan, processes, board, numbers)
        if not kill_at(life, run, board, kind, interval):
            while not life.gone():
                time.sleep(0.01)
            report["ended_early"] += 1
            if (run.folder / "result.json").exists():
                break
            if report["ended_early"] > 3:
                raise SystemExit(f"a life ended with {life.code}")
            continue
        report["seconds_to_leave"].append(round(life.kill(victim), 3))
        for name, key in (("kinds", kind), ("victims", victim)):
            report[name][key] = report[name].get(key, 0) + 1
        before, saved = saved, saved_step(run)
        step = count_kill(report, life, run, before, saved)
        print(f"kill {report['kills']}: {victim}, {kind}, step {step}, saved {saved}", flush=True)
        write_json(report, count)
    life = Life(plan, processes, board, numbers)
    while not life.gone():
        time.sleep(0.05)
    report["exit_code"] = life.code
    report["losses"] = run.losses()
    report["stray_files"] = run.stray_files()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2, choices=range(1, RANKS + 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--interval", type=float, default=INTERVAL, help="between checkpoints, s")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", metavar="results/NAME", help="write to the folder NAME_<date>")
    args = parser.parse_args()
    more = (args.seed, args.epochs, args.interval, args.processes)
    report = chaos(args.root / "killed", args.kills, *more)
    quiet = chaos(args.root / "undisturbed", 0, *more)
    report["asked"] = args.kills
    report["processes"] = args.processes
    report["interval_seconds"] = args.interval
    report["most_lost_seconds"] = max(report["lost_seconds"], default=0.0)
    report["equal"] = report["losses"] == quiet["losses"]
    report["final_loss"] = report["losses"][-1]
    report["final_loss_undisturbed"] = quiet["losses"][-1]
    report["epochs"] = len(report.pop("losses"))
    if args.out:
        write_result(report, args.out)
    print(json.dumps(report))
    return 0


def most_beyond(report: dict[str, Any]) -> float:
    """Most seconds lost at a kill, without the longest of the lost steps."""
    pairs = zip(report["lost_seconds"], report["longest_step"], strict=True)
    return round(max(lost - step for lost, step in pairs), 3)


def write_result(report: dict[str, Any], out: str) -> None:
    from convit_ssl.evaluation.results import commit, hardware, record_folder, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = "python tests/integration/chaos.py " + " ".join(sys.argv[1:])
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    load = round(os.getloadavg()[0], 1)
    config = (Path(sys.argv[sys.argv.index("--root") + 1]) / "killed/run/config.yaml").read_text()
    entry = {"command": command, **about, "load_average": load, "config": config, **report}
    write_json(entry, record_folder(f"{out}_{date}") / "result.json")
    kinds, victims = (
        ", ".join(f"{count} {kind}" for kind, count in sorted(report[name].items()))
        for name in ("kinds", "victims")
    )
    lost = sorted(report["lost_seconds"])
    rows = {
        "kills": f"{report['kills']} of {report['asked']} ({kinds})",
        "killed": victims,
        "lives in which the clock jumped, by up to a day": report["clock_jumps"],
        "seconds until nothing was left of a life, at most": f"{max(report['seconds_to_leave']):g}",
        "lives that came to a step": report["lives_that_stepped"],
        "of these, not from the last whole checkpoint": report["began_elsewhere"],
        "seconds between checkpoints": f"{report['interval_seconds']:g}",
        "lost at a kill, seconds": f"{lost[len(lost) // 2]:g} in the middle, {lost[-1]:g} at most",
        "the longest single step of those lost": f"{max(report['longest_step']):g} s",
        "lost at a kill, less that step": f"{most_beyond(report):g} s at most",
        "lost at a kill, steps": f"{max(report['lost_steps'])} at most",
        "files in the checkpoint folder": f"{report['most_files']} at most",
        "files left over at the end": len(report["stray_files"]),
        "epochs": report["epochs"],
        "losses of all epochs equal to the undisturbed run's": "yes" if report["equal"] else "no",
        "final loss": f"{report['final_loss']} (undisturbed {report['final_loss_undisturbed']})",
    }
    words = (
        f"`{command}`, {date}, commit {about['commit']}.\n\n{about['hardware']['cpu']}, "
        f"{about['hardware']['cores']} cores, load {load} at the end; torch "
        f"{about['versions']['torch']}.\n\n{report['processes']} process(es) train one run and "
        "are killed with SIGKILL: while starting, at a random step, or while a checkpoint is being "
        "written. The kill hits all processes at once, the launcher alone, one process alone, or "
        "one after the other; the processes that are left must exit by themselves. The same "
        "command then restarts the run. Expected: each restart resumes from the last complete "
        "checkpoint, no more work is lost than lies between two checkpoints, no process is left "
        "behind, and all losses equal those of an undisturbed run."
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    text = f"# Killed again and again\n\n{words}\n\n| | |\n|---|---|\n{table}\n"
    (record_folder(f"{out}_{date}") / "README.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
