"""``bench threads``: numbers of threads side by side, alone and beside busy neighbours."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convit_ssl.bench.report import TableOf
from convit_ssl.children import safe_command, safe_environment
from convit_ssl.errors import UserError
from convit_ssl.machine import WAITING

Process = subprocess.Popen[str]
LONGEST = 900.0  # seconds; a neighbour ends by itself after so long, whatever happens to us
# It ends with its time, or with the process that started it.
_BUSY = """
import os, time
end, parent = time.monotonic() + {}, os.getppid()
while time.monotonic() < end and os.getppid() == parent:
    for _ in range(10_000): pass
"""
_BRIEF = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
NOTES = [
    "Steps per second of the trunk in fp32 (forward, backward and AdamW). Each arm is a "
    "process of its own that sleeps while others are measured. Values are means over rounds "
    "in which all arms take turns beside each number of neighbours; a neighbour is a busy "
    "loop in one thread. In brackets: the ratio to the fair share. The second table gives the "
    "same as multiples of one thread.",
    "Fair share: what 1 or n of our threads, whichever gets more, would reach under a "
    "scheduler that gives every busy thread the same time: rate x min(1, cores / (threads + "
    "neighbours + others)). The rate of one thread is steps per second of CPU time. That of n "
    "threads is the best fixed arm without neighbours, corrected by the same rule, and at "
    "most n times the rate of one. Others: runnable processes on the machine before each "
    "round, without this one; the more there are, the less exact the share.",
    "Threads: each operation is divided among the threads. Shares: each thread takes its "
    "share of the batch through the trunk. Processes: each has a copy of the weights and a "
    "share of the batch, and they exchange gradients (DistributedDataParallel, gloo).",
    "'chosen' times its first steps, as a run does; these are not counted. 'OpenMP's own' is "
    "how PyTorch waits by default; 'brief' is what convit-ssl sets.",
]


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        size: nano .. base_plus.
        side, patch: pixels; None takes the network's own patch.
        images: batch.
        cores: that may be used, and the threads of all arms but the first.
    """

    size: str
    side: int
    patch: int | None
    images: int
    cores: int


def arms(cores: int) -> dict[str, dict[str, Any]]:
    """By name: threads and how they are used, processes, whether it is chosen, how they wait."""
    fixed = {"threads": cores, "shares": False, "processes": 1, "chooses": False, "waiting": _BRIEF}
    return {
        "1 thread": {**fixed, "threads": 1},
        f"{cores} threads, OpenMP's own": {**fixed, "waiting": {}},
        f"{cores} threads, brief": fixed,
        f"{cores} shares": {**fixed, "shares": True},
        f"{cores} processes": {**fixed, "threads": 1, "processes": cores},
        "chosen": {**fixed, "shares": True, "chooses": True},
    }


def measure(
    setting: Setting, neighbours: Sequence[int], seconds: float, rounds: int
) -> dict[str, Any]:
    """Every arm beside every number of neighbours, in turns.

    Raises:
        UserError: a process did not start, or a neighbour ended before its time.
    """
    counts = sorted({0, *neighbours})
    slices: list[dict[str, Any]] = []
    others: list[float] = []
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(_worker(setting, arm))
            for name, arm in arms(setting.cores).items()
        }
        for _ in range(rounds):
            others.append(runnable_others())
            for count in counts:
                with busy_neighbours(count) as busy:
                    for name, worker in workers.items():
                        found = _ask(worker, seconds)
                        slices.append({"arm": name, "neighbours": count, **found})
                        rate = found["steps"] / found["seconds"]
                        print(f"{count:>3} neighbours  {name}: {rate:.2f} steps/s", flush=True)
                    if any(process.poll() is not None for process in busy):
                        raise UserError("neighbours ended early; give fewer --seconds or --images")
    return {
        "threads": {**asdict(setting), "seconds": seconds, "neighbours": counts},
        "rows": {
            "others": others,
            "slices": slices,
            "summary": summarise(slices, statistics.mean(others), setting.cores),
        },
    }


def summarise(
    slices: Sequence[Mapping[str, Any]], others: float, cores: int
) -> list[dict[str, Any]]:
    """For each number of neighbours the fair share, and each arm's rate and ratio to it.

    Args:
        slices: ``arm, neighbours, steps, seconds, cpu_seconds`` of each turn.
        others: runnable processes beside ours and our neighbours.
        cores: that are shared.
    """
    names = list(dict.fromkeys(s["arm"] for s in slices))
    one, *fixed = (name for name in names if name != "chosen")

    def rate(arm: str, count: int) -> float:
        rates = [
            s["steps"] / s["seconds"] for s in slices if (s["arm"], s["neighbours"]) == (arm, count)
        ]
        return float(statistics.mean(rates))

    def share(threads: int, count: int) -> float:
        runnable: float = threads + count + others
        return min(1.0, cores / runnable)

    alone = [s for s in slices if s["arm"] == one]
    single = sum(s["steps"] for s in alone) / sum(s["cpu_seconds"] for s in alone)
    several = min(max(rate(name, 0) for name in fixed) / share(cores, 0), cores * single)
    rows = []
    for count in sorted({s["neighbours"] for s in slices}):
        fair = max(single * share(1, count), several * share(cores, count))
        found = {name: rate(name, count) for name in names}
        rows.append(
            {
                "neighbours": count,
                "fair_share": fair,
                "steps_per_s": found,
                "of_fair_share": {name: value / fair for name, value in found.items()},
                "of_one_thread": {name: value / found[one] for name, value in found.items()},
            }
        )
    return rows


def gains(comparison: dict[str, Any]) -> TableOf:
    """What each arm makes of the cores: its rate as a multiple of one thread's."""
    summary = comparison["rows"]["summary"]
    names = [name for name in summary[0]["of_one_thread"] if name != "1 thread"]
    lines = [
        [str(row["neighbours"]), *(f"{row['of_one_thread'][name]:.2f} x" for name in names)]
        for row in summary
    ]
    return f"{table(comparison)[0]}: times one thread", ("neighbours", *names), lines


def table(comparison: dict[str, Any]) -> TableOf:
    """A line for each number of neighbours."""
    setting, summary = comparison["threads"], comparison["rows"]["summary"]
    names = list(summary[0]["steps_per_s"])
    lines = [
        [
            str(row["neighbours"]),
            f"{row['fair_share']:.2f}",
            *(f"{row['steps_per_s'][n]:.2f} ({row['of_fair_share'][n]:.2f})" for n in names),
        ]
        for row in summary
    ]
    others = statistics.mean(comparison["rows"]["others"])
    title = (
        f"Steps per second, convit_{setting['size']}, {setting['images']} images of "
        f"{setting['side']} px, {setting['cores']} cores, {others:.1f} other runnable processes"
    )
    return title, ("neighbours", "fair share", *names), lines


def runnable_others(samples: int = 20, pause: float = 0.05, root: Path = Path("/")) -> float:
    """Mean number of runnable processes on the machine, less this one; 0 where none is told."""
    counts = []
    for _ in range(samples):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = (root / "proc/stat").read_text()
            counts.append(int(text.split("procs_running", 1)[1].split()[0]) - 1)
        time.sleep(pause)
    return max(statistics.mean(counts), 0.0) if counts else 0.0


@contextlib.contextmanager
def busy_neighbours(count: int, longest: float = LONGEST) -> Iterator[list[Process]]:
    """So many busy loops in the block, each a process that ends by itself after `longest` s."""
    command = [sys.executable, "-I", "-S", "-c", _BUSY.format(longest)]
    started: list[Process] = []
    try:
        while len(started) < count:  # one by one, so that those before a failure are ended
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True))
        yield started
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@contextlib.contextmanager
def _worker(setting: Setting, arm: Mapping[str, Any]) -> Iterator[Process]:
    limited = (*WAITING, "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in limited}
    described = {**asdict(setting), **{k: v for k, v in arm.items() if k != "waiting"}}
    command = [sys.executable, "-m", "convit_ssl.bench.thread_worker", json.dumps(described)]
    process = subprocess.Popen(
        safe_command(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=safe_environment({**environment, **arm["waiting"]}),
    )
    try:
        _answer(process)
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _ask(process: Process, seconds: float) -> dict[str, Any]:
    assert process.stdin is not None, "it was opened with pipes"
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(_answer(process))
    return found


def _answer(process: Process) -> str:
    assert process.stdout is not None, "it was opened with pipes"
    line = process.stdout.readline()
    if not line:
        raise UserError("a process of the benchmark exited without a result; see its message above")
    return line
