"""``bench scaling``: growth with the image side, and with the number of processes."""

from __future__ import annotations

import math
import os
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import spawn

from convit_ssl.bench import contenders, models
from convit_ssl.bench.report import TableOf
from convit_ssl.process_end import end_process, leave_group

GROWING = ("ours", "vit", "timm")
NOTES = [
    "Growth: forward passes of one image; p is the exponent in time ~ side^p, by least "
    "squares over the larger half of the sides. 2 means linear in the number of patches, 4 "
    "quadratic.",
    "Processes: DistributedDataParallel, each process with its own batch. Communication is "
    "the share of a step that disappears under no_sync. On one machine, processes share its "
    "cores.",
]


def table(comparison: dict[str, Any]) -> TableOf:
    """One comparison as a table."""
    return (_growth_table if "growth" in comparison else _process_table)(comparison)


def growth(
    size: str, sides: Sequence[int], dtype: str, device: str, clock: str, repeats: int
) -> dict[str, Any]:
    """Milliseconds per image at each side, and the exponent; None where memory did not suffice."""
    sides = sorted(set(sides))
    rows: dict[str, list[float | None]] = {name: [] for name in GROWING}
    for side in sides:
        threads = torch.get_num_threads()
        setting = models.Setting(size, side, 1, dtype, "forward", False, device, clock, threads)
        found = dict(models.compare_times(setting, GROWING, repeats))
        for name, times in rows.items():
            times.append(1e3 * found[name].median if name in found else None)
        latest = "  ".join(f"{name} {_spent(times[-1])}" for name, times in rows.items())
        print(f"{size}, {side:>4} px  {latest}", flush=True)
    half = len(sides) // 2
    exponents = {name: _slope(sides[half:], times[half:]) for name, times in rows.items()}
    setting_json = {"size": size, "sides": list(sides), "dtype": dtype, "device": device}
    return {
        "growth": setting_json,
        "rows": [
            {"name": name, "milliseconds": times, "exponent": exponents[name]}
            for name, times in rows.items()
        ],
    }


def _spent(milliseconds: float | None) -> str:
    return "out of memory" if milliseconds is None else f"{milliseconds:.1f} ms"


def _slope(sides: Sequence[int], times: Sequence[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(sides, times, strict=True) if b is not None]
    if len(pairs) < 2:
        return None
    x, y = [math.log(side) for side, _ in pairs], [math.log(value) for _, value in pairs]
    return statistics.linear_regression(x, y).slope


def _growth_table(comparison: dict[str, Any]) -> TableOf:
    """Sides as columns."""
    setting = comparison["growth"]
    columns = ["network", *(f"{side} px, ms" for side in setting["sides"]), "exponent"]
    lines = [
        [
            contenders.CONTENDERS[row["name"]],
            *("-" if value is None else f"{value:.1f}" for value in row["milliseconds"]),
            "-" if row["exponent"] is None else f"{row['exponent']:.2f}",
        ]
        for row in comparison["rows"]
    ]
    return f"Growth with the image side, {setting['size']}, {setting['dtype']}", columns, lines


def processes(
    size: str, side: int, batch: int, counts: Sequence[int], device: str, repeats: int
) -> dict[str, Any]:
    """Seconds per step by number of processes, with and without communication; the fewest first."""
    device = torch.device(device).type  # each process has a device of its own
    rows: list[dict[str, float | None]] = []
    for count in sorted(set(counts)):
        if device == "cuda" and count > torch.cuda.device_count():
            rows.append({"processes": count, "seconds": None, "without": None})
            continue
        seconds, without = _time_processes(count, size, side, batch, device, repeats)
        print(f"{count} processes  {1e3 * seconds:.0f} ms a step", flush=True)
        rows.append({"processes": count, "seconds": seconds, "without": without})
    setting = {"size": size, "side": side, "batch": batch, "device": device}
    return {"processes": setting, "rows": rows}


def _time_processes(
    count: int, size: str, side: int, batch: int, device: str, repeats: int
) -> tuple[float, float]:
    """Median seconds of a step, and of one that does not communicate."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (count, _free_port(), size, side, batch, device, repeats, queue)
    spawn(_worker, arguments, nprocs=count)
    seconds, without = queue.get()
    return seconds, without


def _worker(
    rank: int, count: int, port: int, size: str, side: int, batch: int, device: str,
    repeats: int, queue: Any,
) -> None:  # fmt: skip
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=count)
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    trunk = contenders.build("ours", contenders.size_config(size, side)).to(place)
    model = DistributedDataParallel(trunk)
    images = torch.randn(batch, 3, side, side, device=place)

    def step(synchronise: bool) -> float:
        torch.distributed.barrier()
        start = time.perf_counter()
        if synchronise:
            model(images).square().mean().backward()
        else:
            with model.no_sync():
                model(images).square().mean().backward()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        spent = time.perf_counter() - start
        model.zero_grad(set_to_none=True)
        return spent

    pairs = [(step(True), step(False)) for _ in range(repeats + 2)][2:]
    if rank == 0:
        queue.put(tuple(statistics.median(column) for column in zip(*pairs, strict=True)))
    leave_group()
    end_process(0)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _process_table(comparison: dict[str, Any]) -> TableOf:
    """A line for each number of processes."""
    setting = comparison["processes"]
    columns = ["processes", "ms / step", "images/s", "efficiency", "communication"]
    lines, one = [], None
    for row in comparison["rows"]:
        if row["seconds"] is None:
            lines.append([str(row["processes"]), "not measured", "-", "-", "-"])
            continue
        speed = row["processes"] * setting["batch"] / row["seconds"]
        one = one or speed / row["processes"]
        share = max(0.0, 1 - row["without"] / row["seconds"])
        lines.append(
            [
                str(row["processes"]), f"{1e3 * row['seconds']:.0f}", f"{speed:.1f}",
                f"{speed / row['processes'] / one:.0%}", f"{share:.0%}",
            ]
        )  # fmt: skip
    where = f"{setting['side']} px, batch {setting['batch']} each, {setting['device']}"
    return f"Processes, {setting['size']}, {where}", columns, lines
