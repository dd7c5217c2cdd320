"""Kill a run of two processes again and again, and see what is left of it.

    python tests/integration/chaos.py --kills 50 --root /tmp/chaos --out results/chaos_cpu

The two processes are forked from one that has imported everything, so that a life costs a second
or two. They meet, train, save and are killed as any others: half of the time while a checkpoint
is being written, else at a random moment, from before the first step on; sometimes one of the two
alone. With --out the report is written too, under that name and today's date.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.quick_run import Run  # noqa: E402

INTERVAL = 2.0  # seconds between checkpoints
RECORD = struct.Struct("dq")  # when a step was over, and which
LATEST, FIRST, STEPS = 0, 1, 2  # records: the last step of all, the first of a life, each step


class Life:
    """One start of the run, until it ends or is killed.

    Args:
        plan: the run.
        folder: where the processes meet.
        board: memory that both and this process share: a time per step.
    """

    def __init__(self, plan: Any, folder: Path, board: mmap.mmap) -> None:
        folder.mkdir(parents=True)
        self.began = time.time()
        self.children = [self._fork(plan, rank, folder / "rendezvous", board) for rank in (0, 1)]

    def _fork(self, plan: Any, rank: int, meeting: Path, board: mmap.mmap) -> int:
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            import convit_ssl.engines.heartbeat as heartbeat
            from convit_ssl.engines.train import train

            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            plain = heartbeat.HeartbeatHook.on_step

            def noted(hook: Any, task: Any) -> None:
                plain(hook, task)
                if rank == 0:
                    note(board, STEPS + task.iteration, task.iteration)
                    if read(board, FIRST)[0] < self.began:
                        note(board, FIRST, task.iteration)
                    note(board, LATEST, task.iteration)

            heartbeat.HeartbeatHook.on_step = noted  # type: ignore[method-assign]
            code = train(plan, rank, rank, str(meeting), self.began)
        except BaseException as error:
            print(f"rank {rank}: {error!r}"[:300], file=sys.stderr, flush=True)
        finally:
            os._exit(code)

    def running(self) -> bool:
        for child in list(self.children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                self.children.remove(child)
                self.code = os.waitstatus_to_exitcode(status)
        return bool(self.children)

    def kill(self, one: bool) -> None:
        """Both at once as a power cut does, or one and the other as the launcher would."""
        victims = self.children[::-1] if random.random() < 0.5 else self.children
        for number, child in enumerate(victims):
            if one and number:
                time.sleep(random.uniform(0, 0.5))
            os.kill(child, signal.SIGKILL)
        for child in self.children:
            os.waitpid(child, 0)
        self.children = []


def note(board: mmap.mmap, slot: int, step: int) -> None:
    RECORD.pack_into(board, RECORD.size * slot, time.time(), step)


def read(board: mmap.mmap, slot: int) -> tuple[float, int]:
    when, step = RECORD.unpack_from(board, RECORD.size * slot)
    return float(when), int(step)


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
        deadline, condition = time.time() + random.uniform(0, 2.0), None
    else:
        while not first_step_after(board, life.began):
            if not life.running():
                return False
            time.sleep(0.005)
        saving = kind == "writing"
        chosen = time.time() + random.uniform(0, 1.5 * interval)
        deadline = chosen + (20.0 if saving else 0.0)
        condition = (lambda: time.time() > chosen and writing(run)) if saving else None
    while time.time() < deadline and not (condition is not None and condition()):
        if not life.running():
            return False
        time.sleep(0.0005)
    return True


def saved_step(run: Run) -> int:
    """The step that the next life begins after; 0 before the first checkpoint."""
    from convit_ssl.engines.checkpoint import find_checkpoint

    found = find_checkpoint(run.checkpoints)
    return int(found.path.stem.rpartition("_s")[2]) if found is not None else 0


def chaos(
    root: Path, kills: int, seed: int, epochs: int, interval: float = INTERVAL
) -> dict[str, Any]:
    """Kill as often, let it finish, and report.

    Returns:
        Kills by kind, the work lost at each in seconds and steps, files left over.
    """
    import convit_ssl.adapters  # noqa: F401
    from convit_ssl.engines.config import compose_experiment
    from convit_ssl.engines.plan import make_plan
    from convit_ssl.engines.train import write_config

    random.seed(seed)
    run = Run(
        root,
        f"optim.epochs={epochs}",
        "run.processes=2",
        f"run.checkpoint_minutes={interval / 60}",
        "data.workers=1",
    )
    plan = make_plan(compose_experiment(run.arguments))
    write_config(plan)
    import vissl.trainer  # noqa: F401 once, for all lives

    board = mmap.mmap(-1, RECORD.size * (STEPS + 10 * epochs + 10))
    report: dict[str, Any] = {"kills": 0, "kinds": {}, "lost_seconds": [], "lost_steps": []}
    report |= {"longest_step": []}
    report |= {"most_files": 0, "lives_that_stepped": 0, "began_elsewhere": 0, "ended_early": 0}
    saved = 0
    while report["kills"] < kills:
        kind = random.choice(["starting", "training", "writing", "writing"])
        life = Life(plan, root / "meet" / str(report["kills"] + report["ended_early"]), board)
        if not kill_at(life, run, board, kind, interval):
            while life.running():
                time.sleep(0.01)
            report["ended_early"] += 1
            if (run.folder / "result.json").exists():
                break
            if report["ended_early"] > 3:
                raise SystemExit(f"a life ended with {life.code}")
            continue
        life.kill(one=random.random() < 0.3)
        report["kills"] += 1
        report["kinds"][kind] = report["kinds"].get(kind, 0) + 1
        began, first = read(board, FIRST)
        if began > life.began:
            report["lives_that_stepped"] += 1
            report["began_elsewhere"] += first != saved + 1
        saved = saved_step(run)
        when, step = read(board, LATEST)
        if when > life.began:
            behind = read(board, STEPS + saved)[0] if saved else when
            # A life that had not saved yet went back to where it began, not further; what it
            # needed to start is no work.
            report["lost_seconds"].append(round(max(when - max(behind, began), 0.0), 3))
            report["longest_step"].append(round(longest_step(board, max(saved, first), step), 3))
            report["lost_steps"].append(step - saved)
        report["most_files"] = max(report["most_files"], len(list(run.checkpoints.glob("*"))))
        print(f"kill {report['kills']}: {kind}, step {step}, saved {saved}", flush=True)
    life = Life(plan, root / "meet" / "last", board)
    while life.running():
        time.sleep(0.05)
    report["exit_code"] = life.code
    report["losses"] = run.losses()
    report["stray_files"] = run.stray_files()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--interval", type=float, default=INTERVAL, help="between checkpoints, s")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", metavar="results/NAME", help="write NAME_<date>.json and .md")
    args = parser.parse_args()
    report = chaos(args.root / "killed", args.kills, args.seed, args.epochs, args.interval)
    quiet = chaos(args.root / "undisturbed", 0, args.seed, args.epochs, args.interval)
    report["asked"] = args.kills
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
    from convit_ssl.evaluation.results import commit, hardware, versions, write_json

    date = time.strftime("%Y-%m-%d", time.gmtime())
    command = "python tests/integration/chaos.py " + " ".join(sys.argv[1:])
    about = {"commit": commit(), "versions": versions(), "hardware": hardware(), "date": date}
    load = round(os.getloadavg()[0], 1)
    config = (Path(sys.argv[sys.argv.index("--root") + 1]) / "killed/run/config.yaml").read_text()
    entry = {"command": command, **about, "load_average": load, "config": config, **report}
    write_json(entry, f"{out}_{date}.json")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report["kinds"].items()))
    lost = sorted(report["lost_seconds"])
    rows = {
        "kills": f"{report['kills']} of {report['asked']} ({kinds})",
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
        f"{about['versions']['torch']}.\n\nTwo processes train one run and are killed with "
        "SIGKILL: while starting, at a random step, or while a checkpoint is being written; in "
        "three of ten cases one first and the other up to half a second later. The same command "
        "then starts the run again. Expected: every life begins after the last whole checkpoint, "
        "nobody loses more than the time between two checkpoints, nothing is left over, and all "
        "losses are those of a run that nothing happened to."
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    text = f"# Killed again and again\n\n{words}\n\n| | |\n|---|---|\n{table}\n"
    Path(f"{out}_{date}.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
