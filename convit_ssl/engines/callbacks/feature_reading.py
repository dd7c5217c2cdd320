"""Features of images while a network is trained: a collective call of all processes of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from convit_ssl.adapters.inputs import features_batch, reads_with_workers
from convit_ssl.data import ImageFiles
from convit_ssl.data.loading.loader_workers import (
    end_workers,
    shared_mib,
    shield_worker,
    workers_that_fit,
)
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.machine import start_method
from convit_ssl.schema_resolved import Resolved

WORKER_PATIENCE = 120.0  # seconds to wait for a batch

Read = TypeVar("Read")


class LookError(Exception):
    """The images of an evaluation cannot be read; all processes know, so none waits for another."""


class FeatureReader:
    """Runs a network over images, each process over its share of them.

    Args:
        options: the experiment's options.
        device: where features are computed.
        autocast: makes the precision of forward passes.
    """

    def __init__(self, options: Resolved, device: torch.device, autocast: Any) -> None:
        self.options = options
        self.device = device
        self.autocast = autocast
        self.workers_hung = False

    @torch.no_grad()
    def features(
        self, trunk: nn.Module, images: ImageFiles, rows: np.ndarray[Any, Any]
    ) -> tuple[Tensor, np.ndarray[Any, Any]]:
        """Class tokens (N, D) of some images, in every process, and which rows could be read."""
        share = rows[processes.rank() :: processes.world_size()]
        own = together(lambda: self.own_features(trunk, Subset(images, share.tolist())))
        parts = processes.gather(own)
        merged = torch.empty(len(rows), max(part.shape[-1] for part, _ in parts))
        readable = np.empty(len(rows), bool)
        for number, (part, known) in enumerate(parts):
            merged[number :: processes.world_size()] = part
            readable[number :: processes.world_size()] = known
        return merged[torch.from_numpy(readable)], rows[readable]

    def own_features(
        self, trunk: nn.Module, images: Subset[Any]
    ) -> tuple[Tensor, np.ndarray[Any, Any]]:
        """Class tokens of this process's images, read by workers where that is faster.

        With them (N,) whether each could be read; the others' are of black pictures.

        They are forked from a process with other threads, which once in a long while leaves one
        that never answers. Then the images are read here, from now on.
        """
        with_workers = reads_with_workers(self.options) and not self.workers_hung
        workers = self.options.derived.workers if with_workers else 0
        size = features_batch(self.options)
        if workers and len(images):
            each = self.options.derived.processes * shared_mib(images, min(size, len(images)))
            workers = workers_that_fit(workers, each)
        # The other processes wait in a collective meanwhile, so half of their patience at most.
        patience = min(WORKER_PATIENCE, 30.0 * float(self.options.run.timeout_minutes))
        loader: DataLoader[Any] = DataLoader(
            images,
            batch_size=size,
            num_workers=workers,
            multiprocessing_context=start_method() if workers else None,
            worker_init_fn=shield_worker,
            generator=torch.Generator().manual_seed(0),
            timeout=patience if workers else 0,
        )
        features: list[Tensor] = []
        readable: list[Tensor] = []
        batches = iter(loader)
        try:
            for batch, _, indices in batches:
                readable.append(indices >= 0)
                with self.autocast():
                    views = batch if isinstance(batch, list) else [batch]
                    moved = [view.to(self.device) for view in views]
                    out = trunk(moved if isinstance(batch, list) else moved[0])
                features.append((out[0] if isinstance(out, list) else out).float().cpu())
        except RuntimeError as error:
            if not workers or "timed out" not in str(error):
                raise
            self.workers_hung = True
            logging.warning(
                "the loader workers of a feature evaluation did not answer within %g s; from now "
                "on this process reads the images itself",
                patience,
            )
            return self.own_features(trunk, images)
        finally:
            end_workers([batches])
        if not features:
            return torch.empty(0), np.empty(0, bool)
        return torch.cat(features), torch.cat(readable).numpy()


def together(read: Callable[[], Read]) -> Read:
    """What `read` gives, once it has worked in every process.

    The others would wait for ever in the next exchange for one that could not read. Only what
    the data raise is caught: any other error is a defect of the program's.

    Raises:
        LookError: in every process, where it did not work in one of them.
    """
    result: list[Read] = []
    problem = ""
    try:
        result.append(read())
    except UserError as error:
        problem = str(error)
    for found in processes.gather(problem):
        if found:
            raise LookError(found)
    return result[0]
