"""One process of a run: VISSL's trainer between our start and our end."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convit_ssl import __version__, adapters, plugins
from convit_ssl.data.loading.loader_workers import end_workers
from convit_ssl.engines.callbacks.console import Screen, run_facts
from convit_ssl.engines.callbacks.heartbeat import Heartbeat, HeartbeatHook
from convit_ssl.engines.callbacks.progress import TrainingHook
from convit_ssl.engines.callbacks.record import Recorder
from convit_ssl.engines.checkpoints.files import (
    CHECKPOINTS,
    Found,
    find_checkpoint,
    read_state,
    remove_leftovers,
)
from convit_ssl.engines.checkpoints.lock import lock_run
from convit_ssl.engines.checkpoints.resume import check_same_run, steps_taken
from convit_ssl.engines.checkpoints.run_folder import FolderGuard, resume_words
from convit_ssl.engines.checkpoints.saving import CheckpointHook
from convit_ssl.engines.launch.failures import describe_loss, describe_shortage
from convit_ssl.engines.launch.orphans import met
from convit_ssl.engines.launch.preflight import PreflightHook
from convit_ssl.engines.launch.rendezvous import join
from convit_ssl.engines.launch.signals import RunFailure, SignalBox, Stopped
from convit_ssl.engines.launch.thread_trials import thread_hooks
from convit_ssl.engines.options.plan import Plan
from convit_ssl.engines.process import log_to, multiplies_by_onednn, seed_all, set_environment
from convit_ssl.engines.result import finish
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.results import commit, hardware
from convit_ssl.models.products import onednn_products
from convit_ssl.models.trunks import count_parameters
from convit_ssl.once import within_command
from convit_ssl.process_end import leave_group
from convit_ssl.runs import RunFolder

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


@within_command()
def train(
    plan: Plan, rank: int, local_rank: int, meeting: str, started: float, quiet: bool = False
) -> int:
    """Train in this process until the run is done, or a signal stops it.

    Args:
        plan: the run.
        rank: this process among all.
        local_rank: and on this machine.
        meeting: where the processes meet: a file, ``env://`` or ``slurm``.
        started: `time.time()` at the command's start.
        quiet: show nothing; the log has it.

    Returns:
        0; 128 and the signal's number; 74 where a signal came and no checkpoint could be written.

    Raises:
        UserError: what the user can mend.
        RunFailure: another process or a loader worker was lost; the same command resumes.
    """
    folder = plan.folder
    minutes, grace = plan.settings.run.timeout_minutes, plan.settings.run.grace_seconds
    _enter(plan, rank, local_rank, meeting)
    world = plan.placement.world_size
    screen = Screen(quiet) if rank == 0 else None
    say = (lambda text: screen.line(text, style="yellow")) if screen is not None else None
    heartbeat = Heartbeat(folder, rank, world, stall_seconds=min(30 * minutes, 120.0), say=say)
    checkpoints = folder / CHECKPOINTS
    box = SignalBox(grace, lambda: f"{heartbeat.describe()}. {resume_words(checkpoints)}")
    finished = False
    try:
        box.install()
        with _held(folder) if rank == 0 else contextlib.nullcontext() as guard:
            heartbeat.start()
            with onednn_products(multiplies_by_onednn(plan)):
                _train(plan, folder, started, screen, heartbeat, box, guard)
        finished = True
    except Stopped as stop:
        finished = box.stopping = True
        logging.warning("%s", stop)
        if screen is not None:
            screen.line(str(stop), style="red" if stop.problem else "yellow")
        return stop.exit_code
    except (RuntimeError, EOFError, OSError) as error:
        if shortage := describe_shortage(error, plan.settings, heartbeat):
            logging.exception("memory ran out")
            raise UserError(shortage) from None
        lost = describe_loss(error, heartbeat)
        if lost is None:
            raise
        # srun ends the others when one fails: a SIGTERM that must not become our exit code.
        box.stopping = True
        logging.exception("the run cannot continue")
        raise RunFailure(f"{lost}. {resume_words(checkpoints)}") from None
    finally:
        heartbeat.stop(finished)
        box.restore()
        leave_group()
    return 0


def _enter(plan: Plan, rank: int, local_rank: int, meeting: str) -> None:
    """Make this process one of the run's, and wait until all are there."""
    plugins.load(plan.settings.plugins)
    set_environment(plan, rank, local_rank)
    log_to(RunFolder(plan.folder).log if rank == 0 else None)
    join(plan.placement, rank, meeting, plan.settings.run.timeout_minutes)
    met()


def _train(
    plan: Plan,
    folder: Path,
    started: float,
    screen: Screen | None,
    heartbeat: Heartbeat,
    box: SignalBox,
    guard: FolderGuard | None,
) -> None:
    adapters.register()
    from vissl.config import AttrDict
    from vissl.trainer import SelfSupervisionTrainer
    from vissl.utils.hydra_config import infer_and_assert_hydra_config

    config = AttrDict(plan.config)
    infer_and_assert_hydra_config(config)
    rank = processes.rank()
    seed_all(int(config.SEED_VALUE))
    checkpoints = folder / CHECKPOINTS
    if rank == 0:
        remove_leftovers(checkpoints)
    # One process looks, so that all agree.
    found = processes.broadcast(_where_to_go_on(checkpoints, plan) if rank == 0 else None)
    recorder = Recorder(folder, config.CONVIT_SSL) if rank == 0 else None
    training = TrainingHook(config.CONVIT_SSL, screen, recorder, started)
    state = read_state(found.path) if found is not None else None
    entry = _entry(plan)
    saving = CheckpointHook(
        config.CONVIT_SSL, checkpoints, entry, training, screen, state, box, heartbeat, guard
    )
    preflight = PreflightHook(config.CONVIT_SSL, checkpoints, entry["commit"], screen)
    fixed = bool(plan.settings.run.deterministic)
    threads = thread_hooks(plan.placement, fixed, training, folder)
    trainer = SelfSupervisionTrainer(
        config,
        "",
        checkpoint_path=str(found.path) if found is not None else None,
        checkpoint_folder=str(checkpoints),
        hooks=[HeartbeatHook(heartbeat), training, preflight, saving, *threads],
    )
    if recorder is not None:
        recorder.drop_after(-1 if state is None else steps_taken(state))
    if screen is not None:
        parameters = count_parameters(plan.trunk)
        resumed = None
        if found is not None:
            resumed = "; ".join([f"from {found.path.name}", *found.skipped])
        screen.facts(run_facts(plan, parameters, resumed), f"convit_ssl {plan.settings.experiment}")
    # Initialisation is alike in all processes; what is drawn in training is not.
    torch.manual_seed(int(config.SEED_VALUE) * 9973 + rank)
    try:
        with imports_uncollected():
            trainer.train()
        saving.finish()
    finally:
        saving.wait()
        _end_loaders(trainer.task)
    if screen is not None:
        finish(plan, folder, training, screen)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[FolderGuard]:
    """The lock of a run folder, and what notices that the folder is gone."""
    with lock_run(folder), contextlib.closing(FolderGuard(folder)) as guard:
        yield guard


def _where_to_go_on(checkpoints: Path, plan: Plan) -> Found | None:
    # Under the run's lock: since the command looked, another one may have begun the run.
    found = find_checkpoint(checkpoints)
    if found is not None:
        check_same_run(found.path, plan)
    return found


@contextlib.contextmanager
def imports_uncollected() -> Iterator[None]:
    """Let the garbage collector pass over what is there before training.

    VISSL collects whenever an epoch or a test begins, over the 350,000 objects of the imported
    modules: 0.2 s, which is most of an epoch of a few hundred small images.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _end_loaders(task: ConViTSSLTask) -> None:
    loaders = getattr(task, "dataloaders", {}).values()
    kept = [getattr(loader, "_iterator", None) for loader in loaders]
    end_workers([*kept, getattr(task, "data_iterator", None)])


def _entry(plan: Plan) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    model = {**asdict(plan.trunk), "num_classes": 0}
    return {
        "model": {k: list(v) if isinstance(v, tuple) else v for k, v in model.items()},
        "variant": plan.settings.trunk.variant,
        "method": plan.settings.method.name,
        "config": json.loads(json.dumps(plan.options)),
        "data": plan.facts,
        "commit": commit() or f"convit_ssl {__version__}",
        "hardware": {**hardware(), "processes": plan.placement.world_size},
        "command": ["convit-ssl", "train", *plan.arguments],
    }
