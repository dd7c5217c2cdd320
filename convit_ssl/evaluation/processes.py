"""Run a function in one process or in several that form one process group.

A group of one exchanges nothing. Gloo would hand the values to a thread of its own, whose copies
give it OpenMP threads beside the main thread's; from then on OpenMP, counting more threads than
cores, lets them sleep between two operations, and training is a third slower to its end.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import multiprocessing

from convit_ssl.children import safe_children
from convit_ssl.leftovers import temporary_folder
from convit_ssl.process_end import end_process, leave_group

Result = TypeVar("Result")

# Rank 0 trains probes alone while the others wait, so the wait may be long.
TIMEOUT = timedelta(hours=12)


def rank() -> int:
    """This process's number in the group, 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes in the group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all processes of the group."""
    if world_size() > 1:
        dist.barrier()


def broadcast(value: Result) -> Result:
    """Rank 0's value, in every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Result) -> list[Result]:
    """The values of all processes by rank, in every process."""
    if world_size() == 1:
        return [value]
    box: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def default_device() -> torch.device:
    """A GPU of this process's own where there are GPUs, else the CPU."""
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", rank()))
        return torch.device("cuda", local % torch.cuda.device_count())
    return torch.device("cpu")


def run_in_processes(
    function: Callable[..., Result], processes: int = 1, *arguments: Any
) -> Result | None:
    """Call `function(*arguments)` in a group of processes and return rank 0's result.

    Under torchrun (WORLD_SIZE above 1 in the environment) this process joins that group
    instead, and ranks above 0 get None. Groups talk over gloo: what they exchange are
    predictions and file names, never gradients.

    Args:
        function: a function of a module, so that new processes find it.
        processes: how many to start; 1 calls the function here.
        arguments: what the function is called with; picklable for several processes.

    Raises:
        Exception: whatever the function raised, in the first process that failed.
    """
    if dist.is_initialized():
        return function(*arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo", timeout=TIMEOUT)
        try:
            result = function(*arguments)
            return result if rank() == 0 else None
        finally:
            leave_group()
    if processes <= 1:
        return function(*arguments)
    with temporary_folder("convit_ssl-group-") as folder:
        return _spawn(function, processes, arguments, folder)


def _spawn(
    function: Callable[..., Result], processes: int, arguments: tuple[Any, ...], folder: Path
) -> Result:
    threads = max(1, torch.get_num_threads() // processes)
    shared = (function, processes, threads, arguments, folder)
    with safe_children():
        context = multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
            _child, shared, processes, join=False
        )
    try:
        while not context.join():
            pass
    except Exception:
        # The child's own exception says more than its exit code or its traceback as text.
        for failure in sorted(folder.glob("error_*.pickle")):
            raise pickle.loads(failure.read_bytes()) from None
        raise
    result: Result = pickle.loads((folder / "result.pickle").read_bytes())
    return result


def _child(
    index: int,
    function: Callable[..., Any],
    processes: int,
    threads: int,
    arguments: tuple[Any, ...],
    folder: Path,
) -> None:
    os.environ["LOCAL_RANK"] = str(index)
    torch.set_num_threads(threads)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=index,
        world_size=processes,
        timeout=TIMEOUT,
    )
    try:
        result = function(*arguments)
    except Exception as error:
        try:
            failure = pickle.dumps(error)
        except Exception:
            failure = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        (folder / f"error_{index}.pickle").write_bytes(failure)
        raise
    if index == 0:
        (folder / "result.pickle").write_bytes(pickle.dumps(result))
    dist.barrier()
    leave_group()
    end_process(0)
