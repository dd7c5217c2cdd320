"""Before the first step: what would end the run later is found now, with the name of the node.

Every process looks around itself, the findings are exchanged, and all processes come to the
same conclusion. After the first steps one line says how long the run will take.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import math
import os
import socket
import time
from collections.abc import Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from convit_ssl.data.loading.loader_workers import SHARED_MEMORY, free_shared_mib, workers_that_fit
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.loading.samples import UnreadableImageError, read_file
from convit_ssl.data.loading.storage import is_there
from convit_ssl.data.readers import reads_by_path
from convit_ssl.engines.callbacks.console import Screen, duration
from convit_ssl.engines.callbacks.forecast import BesideSteps, beside_steps
from convit_ssl.engines.callbacks.progress import QuietHook, peak_memory_mib
from convit_ssl.engines.checkpoints.files import sorted_checkpoints
from convit_ssl.engines.checkpoints.resume import FREE, flat
from convit_ssl.engines.checkpoints.state import random_state, set_random_state
from convit_ssl.engines.launch.signals import RunFailure
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.models.compiling import why_no_compiler
from convit_ssl.schema_resolved import Resolved

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


COLLECTIVE_SECONDS = 30.0
PROBED_IMAGES = 8
PROBE_SECONDS = 0.25  # a slow file system is known after one image
MEASURED_STEPS = 20
LONG_RUN = 120.0  # seconds; a shorter run is over before its prediction is read


@dataclass
class Findings:
    """What one process sees.

    Attributes:
        node: host name.
        rank: the process.
        code: digest of the package's source files.
        commit: where the source is a checkout.
        config: digest of the options that say what is computed.
        images_per_s: reading and augmenting in one worker.
        free_mib: room in the run folder.
        problems: what keeps the run from starting, each with what to do.
    """

    node: str
    rank: int
    code: str
    commit: str
    config: str
    images_per_s: float
    free_mib: float
    problems: list[str] = field(default_factory=list)


class PreflightHook(QuietHook):
    """Checks all nodes when training starts, and predicts its length soon after.

    Args:
        options: the experiment's options.
        folder: where checkpoints go.
        commit: the project's commit in this process.
        screen: the terminal, in the first process.
    """

    def __init__(self, options: Resolved, folder: Path, commit: str, screen: Screen | None) -> None:
        super().__init__()
        self.options = options
        self.folder = folder
        self.commit = commit
        self.screen = screen
        self.need_mib = 0.0
        self.free_mib = 0.0
        self.slowest: Findings
        self._first: tuple[int, float] | None = None

    def on_start(self, task: ConViTSSLTask) -> None:
        """Look around, exchange, refuse."""
        collective_in_time()
        self.need_mib = room_needed(task, self.folder, self.options.run.keep_checkpoints)
        own = look_around(task, self.options, self.folder, self.need_mib, self.commit)
        self.free_mib = own.free_mib
        every = [Findings(**found) for found in processes.gather(asdict(own))]
        self.slowest = min(every, key=lambda found: found.images_per_s)
        problems = judge(every)
        if problems:
            raise UserError("before the first step: " + "\n".join(problems))

    def on_step(self, task: ConViTSSLTask) -> None:
        """Time the first steps; the very first waits for loaders and kernels."""
        if self.screen is None or not task.train or self._first == (-1, 0.0):
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = (task.iteration, now)
            return
        step, began = self._first
        done = task.iteration - step
        if done < min(MEASURED_STEPS, task.steps_per_epoch - 1):
            return
        self._first = (-1, 0.0)
        seconds = (now - began) / max(done, 1)
        beside = beside_steps(task, seconds)
        left = (task.max_iteration - task.iteration) * seconds + beside.seconds
        if left > LONG_RUN:
            self.screen.line(self._prediction(task, done, seconds, left, beside))

    def _prediction(
        self, task: ConViTSSLTask, measured: int, seconds: float, left: float, beside: BesideSteps
    ) -> str:
        end = datetime.datetime.now() + datetime.timedelta(seconds=left)
        memory = f"{peak_memory_mib(task.device):,} MiB"
        return (
            f"expected: {duration(left)} for {task.max_iteration - task.iteration:,} steps of "
            f"{seconds:.3g} s (first {measured} measured; {beside.describe()}), until "
            f"{end:%a %H:%M}; {memory} a process; checkpoints "
            f"{self.need_mib:,.0f} of {self.free_mib:,.0f} MiB free; a loader worker reads "
            f"{self.slowest.images_per_s:,.0f} images/s{self._where()}"
        )

    def _where(self) -> str:
        """The node that reads slowest, where there are several processes."""
        return "" if processes.world_size() == 1 else f" on {self.slowest.node}, the slowest"


def collective_in_time() -> None:
    """A first collective, with a limit of its own.

    Raises:
        RunFailure: names the processes that did not answer.
    """
    if processes.world_size() == 1:
        return
    limit = datetime.timedelta(seconds=COLLECTIVE_SECONDS)
    group: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    try:
        dist.monitored_barrier(group, timeout=limit, wait_all_ranks=True)
    except RuntimeError as error:
        raise RunFailure(
            f"before the first step: the processes could not communicate within "
            f"{COLLECTIVE_SECONDS:.0f} s, seen from {socket.gethostname()}: "
            f"{str(error).splitlines()[0][:300]}. This is usually a firewall or the wrong "
            f"network: set "
            "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface that joins the nodes"
        ) from None


def look_around(
    task: ConViTSSLTask, options: Resolved, folder: Path, need_mib: float, commit: str
) -> Findings:
    """What this process can see of its node: files, disk, versions."""
    alone = processes.world_size() == 1
    problems: list[str] = []
    before = random_state()
    images_per_s = _probe_images(task, problems)
    if images_per_s and options.derived.workers:
        _probe_shared_memory(task.inputs.shared_mib(), options.derived, problems)
    set_random_state(before)  # augmentation may have drawn, as often as time allowed
    logging.info("one loader worker reads %.0f images/s here", images_per_s)
    free_mib = _probe_disk(folder, need_mib, problems)
    if options.run.compile and (problem := why_no_compiler(task.device)):
        problems.append(f"{problem}, or leave out run.compile=true")
    return Findings(
        node=socket.gethostname(),
        rank=processes.rank(),
        code="" if alone else code_digest(),
        commit=commit,
        config="" if alone else config_digest(options),
        images_per_s=images_per_s,
        free_mib=free_mib,
        problems=problems,
    )


def judge(every: list[Findings]) -> list[str]:
    """One message per failure, which names the node."""
    messages = []
    seen: set[tuple[str, str]] = set()
    for found in every:
        for problem in found.problems:
            if (found.node, problem) not in seen:
                seen.add((found.node, problem))
                messages.append(f"node {found.node} (rank {found.rank}): {problem}")
    first = every[0]
    for found in every[1:]:
        where = f"node {found.node} (rank {found.rank})"
        if found.code != first.code:
            messages.append(
                f"{where}: its convit_ssl ({found.commit[:12]}) differs from that of node "
                f"{first.node} ({first.commit[:12]}); bring all nodes to the same commit"
            )
        if found.config != first.config:
            messages.append(
                f"{where}: it was started with different options than node {first.node}; use the "
                f"same command on all nodes"
            )
    return messages


def code_digest() -> str:
    """SHA-256 over the package's Python files, so that uncommitted changes count too."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def config_digest(options: Resolved) -> str:
    """SHA-256 over the options that say what is computed, not where."""
    leaves = {
        key: value
        for key, value in flat(json.loads(json.dumps(options))).items()
        if not key.startswith(FREE)
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def _probe_images(task: ConViTSSLTask, problems: list[str]) -> float:
    """Read a few images as a loader worker would; images/s of one worker."""
    dataset = task.inputs.datasets["TRAIN"]
    assert isinstance(dataset, Sized)
    count = len(dataset)
    step = max(count // PROBED_IMAGES, 1)
    # Each process another part, so that all together look at more.
    first = processes.rank() * 7919
    began = time.perf_counter()
    read = 0
    unreadable: list[str] = []
    for number in range(min(PROBED_IMAGES, count)):
        path = task.inputs.train.path((first + number * step) % len(task.inputs.train))
        try:
            # A slide or a Zarr folder is read by its library, and never as a whole.
            if not reads_by_path(path, task.inputs.train.reading) or not is_there(path):
                read_file(path)
        except UnreadableImageError as error:
            unreadable.append(f"{path} cannot be read ({error})")
        else:
            dataset[(first + number * step) % count]
            read += 1
        if time.perf_counter() - began > PROBE_SECONDS:
            break
    # Single ones are listed and replaced while training; with none, the place is not there.
    if unreadable and not read:
        advice = "mount the data on this node too, at the same place, or correct data_dir"
        if is_url(unreadable[0]):
            advice = "check the address, the network and the credentials of this node"
        problems.append(f"{unreadable[0]}; {advice}")
    seconds = max(time.perf_counter() - began, 1e-9)
    return read / seconds


def _probe_shared_memory(each: float, derived: Any, problems: list[str]) -> None:
    """Whether the batches of this node's loader workers have room, `each` MiB for one."""
    each *= derived.processes
    free = free_shared_mib()
    if workers_that_fit(derived.workers, each) < derived.workers:
        need = derived.workers * each
        problems.append(
            f"{derived.processes} x {derived.workers} loader workers may keep {need:,.0f} MiB of "
            f"batches in {SHARED_MEMORY}, where {free:,.0f} MiB are free; start the container "
            f"with --shm-size={math.ceil(need / 1024) + 1}g or --ipc=host, or give "
            f"data.workers={workers_that_fit(derived.workers, each)}"
        )


def _probe_disk(folder: Path, need_mib: float, problems: list[str]) -> float:
    place = folder
    while not place.exists():
        place = place.parent
    try:
        room = os.statvfs(place)
    except OSError as error:
        problems.append(f"{folder} cannot be reached ({error.strerror}); all nodes need it")
        return 0.0
    free_mib = room.f_bavail * room.f_frsize / 2**20
    if free_mib < need_mib:
        problems.append(
            f"{free_mib:,.0f} MiB are free for checkpoints in {folder}, which need "
            f"{need_mib:,.0f} MiB; make room, keep fewer with run.keep_checkpoints=1, or choose "
            "another place with run.root=/path"
        )
    if not os.access(place, os.W_OK):
        problems.append(f"{place} cannot be written by this user; choose another run.root")
    return free_mib


def room_needed(task: ConViTSSLTask, folder: Path, keep: int) -> float:
    """MiB that the checkpoints of a run will still take.

    The kept ones, the best one and the one being written, less those that are there already.
    """
    own: int = sum(p.numel() * p.element_size() for p in task.base_model.parameters())
    learned = sum(
        p.numel() * p.element_size() for p in task.base_model.parameters() if p.requires_grad
    )
    loss: int = sum(t.numel() * t.element_size() for t in task.base_loss.state_dict().values()
               if hasattr(t, "numel"))  # fmt: skip
    moments = 2 if task.options.optim.name in ("adamw", "muon") else 1
    average = own if task.model_ema is not None else 0
    one = own + moments * learned + loss + average + 2**16
    there = 0
    for path in sorted_checkpoints(folder):
        with contextlib.suppress(OSError):
            there += path.stat().st_size
    needed = max((max(keep, 1) + 2) * one - there, one)
    return float(needed / 2**20)
