"""Start a run: in this process, in several of this machine, under torchrun, or on SLURM."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convit_ssl.engines.checkpoint import find_checkpoint
from convit_ssl.engines.config import compose_experiment
from convit_ssl.engines.plan import Plan, make_plan
from convit_ssl.engines.train import CHECKPOINTS, train, write_config
from convit_ssl.engines.resume import check_same_run, finished
from convit_ssl.errors import UserError


def run_experiment(arguments: Sequence[str], started: float | None = None) -> int:
    """Run an experiment from its command line. Returns the exit code.

    Args:
        arguments: ``config=NAME`` and overrides.
        started: `time.time()` at the command's start.

    Raises:
        UserError: what the user can mend, before anything heavy where that is possible.
    """
    started = started or time.time()
    composed = compose_experiment(arguments)
    if not composed.is_ours:
        from convit_ssl.engines.vissl_run import run_vissl

        return run_vissl(list(arguments))
    plan = make_plan(composed)
    folder = Path(plan.options["run"]["dir"])
    if plan.options["run"]["overwrite"] and int(os.environ.get("RANK", "0")) == 0:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    found = find_checkpoint(folder / CHECKPOINTS)
    if found is not None:
        if finished(found.path, plan):
            print(f"{folder} is finished: {found.path.name}. Start afresh with run.overwrite=true, "
                  "or give the new run a name with run.name=...")  # fmt: skip
            return 0
        check_same_run(found.path, plan)
    if plan.placement.launcher == "slurm":
        from convit_ssl.engines.slurm import submit

        return submit(plan, arguments)
    if int(os.environ.get("RANK", "0")) == 0:
        write_config(plan)
    if plan.placement.launcher == "torchrun":
        train(plan, int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), "env://", started)
    elif plan.placement.world_size == 1:
        train(plan, 0, 0, "", started)
    else:
        _spawn(plan, started)
    return 0


def _spawn(plan: Plan, started: float) -> None:
    """One process per GPU or CPU share of this machine; the first failure ends all."""
    if plan.placement.nodes > 1:
        raise UserError(
            f"run.nodes={plan.placement.nodes} needs run=slurm, or torchrun on each node"
        )
    with tempfile.TemporaryDirectory(prefix="convit_ssl-meet-") as meeting:
        context: Any = torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
            _process, (plan, started, meeting), plan.placement.processes, join=False
        )
        try:
            while not context.join():
                pass
        except Exception:
            # The child's own message says more than its traceback as text.
            for failure in sorted(Path(meeting).glob("message_*")):
                raise UserError(failure.read_text()) from None
            raise


def _process(rank: int, plan: Plan, started: float, meeting: str) -> None:
    try:
        train(plan, rank, rank, f"file://{meeting}/rendezvous", started)
    except UserError as error:
        Path(meeting, f"message_{rank}").write_text(str(error))
        raise


