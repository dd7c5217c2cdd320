"""Where the processes of a run go: devices, nodes, threads and loader workers."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from convit_ssl.engines.launch.threads import choose_threads
from convit_ssl.errors import UserError
from convit_ssl.machine import core_limit
from convit_ssl.schema import RunOptions

MOST_WORKERS = 8
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Placement:
    """The processes of a run.

    Attributes:
        launcher: local, torchrun, slurm (to be submitted) or srun (a process of a SLURM job).
        device: cpu or cuda.
        nodes, processes: machines, and training processes on each.
        threads: CPU threads of each process.
        workers: loader processes of each process.
        backend: nccl or gloo.
        threads_from: what set the number of threads, in words.
        threads_given: the user set it, so that it stays.
    """

    launcher: str
    device: str
    nodes: int
    processes: int
    threads: int
    workers: int
    threads_from: str = ""
    threads_given: bool = False

    @property
    def world_size(self) -> int:
        """Training processes in all."""
        return self.nodes * self.processes

    @property
    def backend(self) -> str:
        """NCCL between GPUs, gloo between CPUs."""
        return "nccl" if self.device == "cuda" else "gloo"


def place(run: RunOptions, workers: int | None = None) -> Placement:
    """Find devices and processes from the options and the environment.

    Args:
        run: the ``run`` options.
        workers: loader processes of each process; None for what the machine allows.

    Raises:
        UserError: a launcher or device that is unknown or absent, more processes than GPUs.
    """
    launcher = _launcher(run)
    device = _device(run, launcher)
    nodes, processes = int(run.nodes), run.processes
    if launcher == "torchrun":
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    if launcher == "srun":
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES", "1"))
        processes = _equal_shares(int(os.environ["SLURM_NTASKS"]), nodes)
    if launcher == "slurm":
        processes = processes or run.gpus_per_node or 1
    if processes is None:
        processes = torch.cuda.device_count() if device == "cuda" else 1
    if device == "cuda" and launcher == "local" and processes > torch.cuda.device_count():
        raise UserError(
            f"run.processes={processes}, but this machine has {torch.cuda.device_count()} GPUs; "
            f"use run.processes={torch.cuda.device_count()}"
        )
    if nodes < 1 or processes < 1:
        raise UserError(f"run.nodes={nodes} and run.processes={processes} must be at least 1")
    available, why = core_limit()
    cores = max(available // processes, 1)
    threads = choose_threads(run.threads, device, processes, available, why)
    if workers is not None and workers < 0:
        raise UserError(f"data.workers={workers} must be at least 0; 0 loads in the same process")
    if workers is None:
        workers = min(cores, MOST_WORKERS)
    return Placement(
        launcher, device, nodes, processes, threads.count, workers, threads.why, threads.given
    )


def choose_precision(name: str, device: str) -> str:
    """The precision of forward passes: as given, or what suits the device.

    Args:
        name: fp32, bf16 or fp16 (both by autocast), or auto: bf16 where the device has
            instructions that multiply in it, fp32 elsewhere.
        device: cpu or cuda.

    Raises:
        UserError: another name.
    """
    if name != "auto" and name not in PRECISIONS:
        raise UserError(f"run.precision={name!r}: use auto, {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if quick else "fp32"


def place_of_process(launcher: str) -> tuple[int, int]:
    """Number of this process among all and on its machine; (0, 0) for one that starts others."""
    if launcher == "torchrun":
        return int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if launcher == "srun":
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
    return 0, 0


def _equal_shares(tasks: int, nodes: int) -> int:
    if tasks % nodes:
        raise UserError(
            f"{tasks} SLURM tasks cannot be divided evenly over {nodes} nodes; use "
            f"--ntasks-per-node"
        )
    return tasks // nodes


def _launcher(run: RunOptions) -> str:
    name = str(run.launcher)
    if name not in ("auto", "local", "torchrun", "slurm"):
        raise UserError(f"run.launcher={name!r}: use auto, local, torchrun or slurm")
    started_by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    # A batch script has SLURM's variables too, but no step: srun makes that.
    in_step = os.environ.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in os.environ
    if name == "torchrun" and not started_by_torchrun:
        raise UserError(
            "run=torchrun is for processes that torchrun started; write "
            "torchrun --nproc-per-node=N tools/run_distributed_engines.py ..., or run=gpu8"
        )
    if started_by_torchrun:
        return "torchrun"
    if in_step and (name == "slurm" or (name == "auto" and _number("SLURM_NTASKS") > 1)):
        return "srun"
    return "local" if name == "auto" else name


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else 0


def _device(run: RunOptions, launcher: str) -> str:
    name = str(run.device)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"run.device={name!r}: use auto, cpu or cuda")
    if launcher == "slurm":  # the nodes' devices are not this machine's
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "this machine has no GPU that PyTorch can use; add run=cpu to train on the CPU, and "
            "trunk=convit_nano for a network small enough for it"
        )
    return name
