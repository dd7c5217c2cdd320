"""Loaders as a run uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def test_workers_live_as_long_as_the_run(build_task: Callable[..., Any]) -> None:
    """The same processes make the next epoch's images, and make other ones."""
    task = build_task("convit_dino", "data.workers=1")
    loader = task.dataloaders["train"]
    processes, first = [], []
    for epoch in (0, 1):
        task.set_epoch("train", epoch, 0, epoch)
        batches = iter(loader)
        views, *_ = next(batches)
        first.append(views[0])
        processes.append([worker.pid for worker in batches._workers])
        for _ in batches:  # workers turn to the next epoch when this one is read
            pass
    assert processes[0] == processes[1]
    assert not torch.equal(first[0], first[1])
    del batches, loader
    task.dataloaders.clear()
