"""A process that trains when `bench threads` tells it to, and sleeps otherwise.

It reads seconds from its input, a line each, and answers with a line of JSON.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from convit_ssl.adapters.side_by_side import Shares, Threads
from convit_ssl.engines.launch.pace import Pace, Way
from convit_ssl.engines.launch.rendezvous import loopback_interface
from convit_ssl.machine import keep_freed_memory
from convit_ssl.models import create_model
from convit_ssl.models.products import onednn_products

SETTLING = 60.0  # seconds at most until a run has chosen its threads
FOREVER = datetime.timedelta(days=1)  # processes sleep while other arms are measured


class Steps:
    """Forward, backward and AdamW of a trunk over random images, with threads in some way.

    Args:
        setting: ``size, side, patch, images``, and ``processes`` that have a share of them each.
    """

    def __init__(self, setting: dict[str, Any]) -> None:
        torch.manual_seed(0)
        patch = {} if setting["patch"] is None else {"patch_size": setting["patch"]}
        self.trunk = _Trunk(
            create_model(f"convit_{setting['size']}", img_size=setting["side"], **patch)
        )
        self.optimizer = torch.optim.AdamW(self.trunk.parameters(), lr=1e-4, fused=True)
        processes = setting.get("processes", 1)
        images = setting["images"] // processes
        self.images = torch.randn(images, 3, setting["side"], setting["side"])
        self.whole: nn.Module = self.trunk
        if processes > 1:
            self.whole = nn.parallel.DistributedDataParallel(self.trunk)
        self.model = _Model(self.trunk)
        self._threads: Threads | None = None

    def use(self, way: Way) -> None:
        """Take the next steps in a way."""
        torch.set_num_threads(way.threads)
        if self._threads is not None and (not way.shares or self._threads.count != way.threads):
            self._threads.close()
            self._threads = None
        if way.shares and self._threads is None:
            self._threads = Threads(way.threads)

    def __call__(self) -> None:
        """Take a step."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._threads is None:
            (features,) = self.whole(self.images)
            features.square().mean().backward()
        else:
            shares = Shares(self._threads, self.model, self.images, contextlib.nullcontext)
            shares.forward()
            shares.leaves[0].square().mean().backward()
            shares.backward()
        self.optimizer.step()


class _Trunk(nn.Module):
    """A trunk that gives a list of features, as VISSL's do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.base_model = network

    def forward(self, images: Tensor, _names: object = None) -> list[Tensor]:
        return [self.base_model(images)]


class _Model:
    """What shares ask of VISSL's model."""

    _output_feature_names = None

    def __init__(self, trunk: nn.Module) -> None:
        self.trunk = trunk


@onednn_products()  # as training does
def main() -> None:
    """Build the network that the command line describes, and answer until the input ends."""
    setting = json.loads(sys.argv[1])
    keep_freed_memory()
    if setting["processes"] > 1:
        _in_processes(setting)
        return
    steps = Steps(setting)
    way = Way(setting["threads"], setting["shares"])
    steps.use(way)
    steps()
    print("ready", flush=True)
    for line in sys.stdin:
        pace = Pace(setting["threads"], shares=True) if setting["chooses"] else None
        print(json.dumps(train(steps, float(line), pace)), flush=True)


def train(steps: Steps, seconds: float, pace: Pace | None) -> dict[str, Any]:
    """Steps for a number of seconds, after choosing the way to use threads if requested.

    Returns:
        ``steps``, ``seconds`` and ``cpu_seconds`` of these steps, ``threads`` and ``shares`` at
        their end, and ``settling``, the seconds before them.
    """
    began = time.perf_counter()
    while pace is not None and time.perf_counter() - began < SETTLING:
        if _paced(steps, pace):
            break
    start, cpu, taken = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        taken += 1
        if pace is None:
            steps()
        else:
            _paced(steps, pace)
    spent = time.perf_counter() - start
    return {
        "steps": taken,
        "seconds": spent,
        "cpu_seconds": time.process_time() - cpu,
        "threads": torch.get_num_threads(),
        "shares": pace is not None and pace.way.shares,
        "settling": start - began,
    }


def _paced(steps: Steps, pace: Pace) -> bool:
    """A step in the way of now; whether it led to a decision."""
    steps.use(pace.way)
    start = time.perf_counter()
    steps()
    decided = pace.step(time.perf_counter() - start) is not None
    steps.use(pace.way)
    return decided or len(pace.ladder) == 1


def _in_processes(setting: dict[str, Any]) -> None:
    """Answer for several processes of one thread each, which take every step together."""
    with tempfile.TemporaryDirectory(prefix="convit_ssl-bench-") as folder:
        arguments = (setting, str(Path(folder, "meeting")))
        context = torch.multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_process, args=(rank, *arguments), daemon=True)
            for rank in range(1, setting["processes"])
        ]
        for process in others:
            process.start()
        _process(0, *arguments)


@onednn_products()
def _process(rank: int, setting: dict[str, Any], meeting: str) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback_interface())
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=setting["processes"],
        timeout=FOREVER,
    )
    steps = Steps(setting)
    steps()
    if rank == 0:
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(_together(steps, float(line))), flush=True)
        return
    with contextlib.suppress(RuntimeError):  # the first process has ended
        while True:
            _together(steps, 0.0)


def _together(steps: Steps, seconds: float) -> dict[str, Any]:
    """Steps of all processes, until the first one has spent the seconds."""
    start, cpu, taken = time.perf_counter(), time.process_time(), 0
    more = torch.ones(())
    while True:
        more.fill_(float(taken == 0 or time.perf_counter() - start < seconds))
        dist.broadcast(more, 0)
        if not more:
            break
        if taken == 0:  # others slept until now
            start, cpu = time.perf_counter(), time.process_time()
        steps()
        taken += 1
    return {
        "steps": taken,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "threads": 1,
        "shares": False,
        "settling": 0.0,
    }


if __name__ == "__main__":
    main()
