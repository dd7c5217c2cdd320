"""What one process of a run sets for itself: variables, threads, products, the log and seeds."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import numpy as np
import torch

from convit_ssl.engines.options.plan import Plan
from convit_ssl.machine import keep_freed_memory
from convit_ssl.models import ConViTConfig
from convit_ssl.printable import PrintableFormatter


def set_environment(plan: Plan, rank: int, local_rank: int) -> None:
    """The variables by which VISSL and PyTorch know a process."""
    os.environ["RANK"] = str(rank)
    os.environ["LOCAL_RANK"] = str(local_rank)
    os.environ["WORLD_SIZE"] = str(plan.placement.world_size)
    torch.set_num_threads(plan.placement.threads)
    if plan.placement.device == "cuda":
        torch.cuda.set_device(local_rank)
        torch.backends.cuda.matmul.allow_tf32 = True
    elif plan.placement.device == "cpu":
        keep_freed_memory()
    if plan.settings.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)


def multiplies_by_onednn(plan: Plan) -> bool:
    """Whether the network is ours on a CPU: others would call PyTorch's attention beside it."""
    compiled = bool(plan.settings.run.compile)
    return plan.placement.device == "cpu" and isinstance(plan.trunk, ConViTConfig) and not compiled


def log_to(path: Path | None) -> None:
    """Send the log to the run's file, and nothing of it to the terminal."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers = [logging.FileHandler(path, encoding="utf-8")]
    words = PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in handlers:
        handler.setFormatter(words)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # no tracebacks on the terminal if the disk is full


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 the state that timm's mixup draws from
    torch.manual_seed(seed)
