"""One process of a run: VISSL's trainer between our start and our end."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import random
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf

from convit_ssl import __version__, adapters, plugins
from convit_ssl.data.listing.division import FILE as SPLIT
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.loading.loader_workers import end_workers
from convit_ssl.data.loading.samples import FaultLog
from convit_ssl.data.opening import find_listing, open_division
from convit_ssl.engines.callbacks.console import Screen, run_facts
from convit_ssl.engines.callbacks.heartbeat import Heartbeat, HeartbeatHook
from convit_ssl.engines.callbacks.progress import TrainingHook
from convit_ssl.engines.callbacks.record import Recorder
from convit_ssl.engines.callbacks.val_figures import OF_A_ROW
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
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.features.fingerprint import experiment_settings, hash_json
from convit_ssl.evaluation.results import commit, hardware, now, versions, write_json
from convit_ssl.machine import keep_freed_memory
from convit_ssl.models import ConViTConfig
from convit_ssl.models.products import onednn_products
from convit_ssl.models.trunks import count_parameters
from convit_ssl.once import within_command
from convit_ssl.printable import PrintableFormatter
from convit_ssl.process_end import leave_group
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import seal_yaml

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
    plugins.load(plan.settings.plugins)
    _environment(plan, rank, local_rank)
    _log_to(RunFolder(folder).log if rank == 0 else None)
    minutes = float(plan.settings.run.timeout_minutes)
    join(plan.placement, rank, meeting, minutes)
    met()
    world = plan.placement.world_size
    screen = Screen(quiet) if rank == 0 else None
    say = (lambda text: screen.line(text, style="yellow")) if screen is not None else None
    heartbeat = Heartbeat(folder, rank, world, stall_seconds=min(30 * minutes, 120.0), say=say)
    grace = float(plan.settings.run.grace_seconds)
    checkpoints = folder / CHECKPOINTS
    box = SignalBox(grace, lambda: f"{heartbeat.describe()}. {resume_words(checkpoints)}")
    finished = False
    try:
        box.install()
        with _held(folder) if rank == 0 else contextlib.nullcontext() as guard:
            heartbeat.start()
            with onednn_products(_multiplies_by_onednn(plan)):
                _train(plan, folder, started, screen, heartbeat, box, guard)
        finished = True
    except Stopped as stop:
        finished = box.stopping = True
        logging.warning("%s", stop)
        if screen is not None:
            screen.line(str(stop), style="red" if stop.problem else "yellow")
        return stop.exit_code
    except (RuntimeError, EOFError, OSError) as error:
        if shortage := describe_shortage(error, plan.options, heartbeat):
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
    _seed(int(config.SEED_VALUE))
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
        parameters = _count_parameters(plan)
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
        _finish(plan, folder, training, screen)


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


def _finish(plan: Plan, folder: Path, training: TrainingHook, screen: Screen) -> None:
    figures = training.figures
    variant, epochs = plan.settings.trunk.variant, plan.settings.optim.epochs
    settings = hash_json(experiment_settings(plan.options))
    result = {
        "kind": "top-1 on val" if "top1" in figures else figures.get("knn_name", "online kNN"),
        "name": f"{variant} {plan.settings.method.name} epoch {epochs}",
        "experiment": plan.settings.experiment,
        "accuracy": figures.get("top1", figures.get("knn")),
        **{key: figures[key] for key in OF_A_ROW if key in figures},
        "epochs": epochs,
        "figures": figures,
        **({"verdict": figures["verdict"]} if "verdict" in figures else {}),
        **({"race": plan.race["decision"]} if plan.race is not None else {}),
        "images_per_s": figures.get("images_per_s"),
        "data": plan.facts,
        "variant": variant,
        "seed": plan.settings.seed,
        "settings_hash": settings,
        "fingerprint": {"settings": settings, "data": plan.facts["digest"]},
        "commit": commit(),
        "versions": versions(),
        "hardware": {**hardware(), "processes": plan.placement.world_size},
        "time": now(),
    }
    written = RunFolder(folder).result
    try:
        write_json(result, written)
    except UserError as error:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)  # of fewer epochs
        reason = getattr(error.__cause__, "strerror", None) or error
        raise UserError(
            f"training is finished, but {written} cannot be written ({reason}). "
            f"Free some space and run the same command again: it only writes the result"
        ) from None
    screen.line(f"done: {RunFolder(folder).last}", style="bold")
    for line in training.verdict_lines:
        screen.line(line)
    _note_unreadable(RunFolder(folder).unreadable, screen)
    options, facts = plan.settings, plan.facts
    where = f" --data-dir {shlex.quote(options.data_dir)}" if options.data_dir else ""
    quoted = shlex.quote(str(folder))
    following = [f"convit-ssl export {quoted} --to safetensors"]
    if facts["classes"] > 1 and not options.derived.test_model and _has_val(plan):
        following.insert(0, f"convit-ssl knn {quoted} --data {facts['name']}{where}")
    for words, command in zip(("next:", "     "), following, strict=False):
        screen.line(f"{words} {command}")


def _note_unreadable(log: Path, screen: Screen) -> None:
    count = len(FaultLog(log).read())
    if count:
        images, others = (
            ("image", "another in its") if count == 1 else ("images", "others in their")
        )
        screen.line(
            f"note: {count:,} unreadable {images}: training used {others} place, and no figure "
            f"counts them; listed in {log}"
        )


def _has_val(plan: Plan) -> bool:
    if DivisionSpec.of(plan.settings.data).divides:
        return True
    try:
        find_listing(plan.facts["name"], plan.settings.data_dir, "val")
    except UserError:
        return False
    return True


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


def _environment(plan: Plan, rank: int, local_rank: int) -> None:
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


def _multiplies_by_onednn(plan: Plan) -> bool:
    """Whether the network is ours on a CPU: others would call PyTorch's attention beside it."""
    compiled = bool(plan.settings.run.compile)
    return plan.placement.device == "cpu" and isinstance(plan.trunk, ConViTConfig) and not compiled


def _log_to(path: Path | None) -> None:
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
    logging.raiseExceptions = False  # a full disk is no reason for tracebacks on the terminal


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 the state that timm's mixup draws from
    torch.manual_seed(seed)


def _count_parameters(plan: Plan) -> int:
    return count_parameters(plan.trunk)


def write_config(plan: Plan) -> None:
    """Write the resolved configuration into the run folder, before anything runs."""
    folder = plan.folder
    text = OmegaConf.to_yaml(OmegaConf.create(plan.options))
    reasons = [f"# {name} = {c.written}: {c.reason}" for name, c in plan.choices.items()]
    make_folder(folder)
    with _writing_in(folder):
        written = seal_yaml("\n".join([*reasons, text]))
        RunFolder(folder).config.write_text(written, encoding="utf-8")
        if plan.race is not None:
            write_json(plan.race, RunFolder(folder).race)
    spec = DivisionSpec.of(plan.settings.data, not plan.settings.derived.test_model)
    if spec.divides:
        division = open_division(plan.facts["name"], plan.settings.data_dir, spec)
        division.write(folder / SPLIT)


def make_folder(folder: Path) -> None:
    """Make the run folder, where it is not there, with room in it for a file.

    Raises:
        UserError: it cannot be written.
    """
    with _writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        RunFolder(folder).lock.touch()


@contextlib.contextmanager
def _writing_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose another with "
            "run.dir=/path"
        ) from None
