"""One process of a run: VISSL's trainer between our start and our end."""

from __future__ import annotations

import datetime
import json
import logging
import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from convit_ssl import adapters
from convit_ssl.engines.checkpoint import find_checkpoint, remove_leftovers
from convit_ssl.engines.console import Screen, run_facts
from convit_ssl.engines.hooks import TrainingHook
from convit_ssl.engines.plan import Plan
from convit_ssl.engines.record import Recorder
from convit_ssl.engines.saving import CheckpointHook
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes

CHECKPOINTS = "checkpoints"
RESULT = "result.json"


def train(plan: Plan, rank: int, local_rank: int, init_method: str, started: float) -> None:
    """Train in this process until the run is done.

    Args:
        plan: the run.
        rank, local_rank: this process among all, and on this machine.
        init_method: where the processes meet: ``env://``, ``file://...`` or ``tcp://...``.
        started: `time.time()` at the command's start.

    Raises:
        UserError: what the user can mend.
    """
    folder = Path(plan.options["run"]["dir"])
    _environment(plan, rank, local_rank)
    _log_to(folder / "log.txt" if rank == 0 else None)
    _join(plan, rank, init_method)
    try:
        _train(plan, folder, local_rank, started)
    finally:
        dist.destroy_process_group()


def _train(plan: Plan, folder: Path, local_rank: int, started: float) -> None:
    adapters.register()
    from vissl.config import AttrDict
    from vissl.trainer import SelfSupervisionTrainer
    from vissl.utils.hydra_config import infer_and_assert_hydra_config

    config = AttrDict(plan.config)
    infer_and_assert_hydra_config(config)
    rank = processes.rank()
    _seed(int(config.SEED_VALUE))
    checkpoints = folder / CHECKPOINTS
    found = find_checkpoint(checkpoints)
    if rank == 0:
        remove_leftovers(checkpoints)
    screen = Screen() if rank == 0 else None
    recorder = Recorder(folder, config.CONVIT_SSL) if rank == 0 else None
    training = TrainingHook(config.CONVIT_SSL, screen, recorder, started)
    state = _read_state(found.path) if found is not None else None
    saving = CheckpointHook(
        config.CONVIT_SSL, checkpoints, _entry(plan), training, screen, state
    )
    trainer = SelfSupervisionTrainer(
        config,
        "",
        checkpoint_path=str(found.path) if found is not None else None,
        checkpoint_folder=str(checkpoints),
        hooks=[training, saving],
    )
    if recorder is not None and state is not None:
        recorder.drop_after(int(state["iteration"]))
    if screen is not None:
        parameters = _count_parameters(plan)
        resumed = None
        if found is not None:
            resumed = "; ".join([f"from {found.path.name}", *found.skipped])
        screen.facts(
            run_facts(plan, parameters, resumed), f"convit_ssl {plan.options['experiment']}"
        )
    # Initialisation is alike in all processes; what is drawn in training is not.
    torch.manual_seed(int(config.SEED_VALUE) * 9973 + rank)
    try:
        trainer.train()
    finally:
        saving.wait()
    if screen is not None:
        _finish(plan, folder, training, screen)


def _finish(plan: Plan, folder: Path, training: TrainingHook, screen: Screen) -> None:
    figures = training.figures
    accuracy = figures.get("top1", figures.get("knn"))
    result = {
        "experiment": plan.options["experiment"],
        "accuracy": accuracy,
        "epochs": plan.options["optim"]["epochs"],
        "figures": figures,
        "data": plan.facts,
        "variant": plan.options["trunk"]["variant"],
        "seed": plan.options["seed"],
    }
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    last = folder / CHECKPOINTS / "last.torch"
    screen.line(f"done: {last}", style="bold")
    options, facts = plan.options, plan.facts
    where = f" --data-dir {options['data_dir']}" if options["data_dir"] else ""
    if facts["classes"] > 1 and not options["derived"]["test_model"]:
        screen.line(f"next: convit-ssl knn {folder} --data {facts['name']}{where}")
    screen.line(f"      convit-ssl export {folder} --to safetensors")


def _entry(plan: Plan) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    model = {**asdict(plan.trunk), "num_classes": 0}
    return {
        "model": {k: list(v) if isinstance(v, tuple) else v for k, v in model.items()},
        "variant": plan.options["trunk"]["variant"],
        "method": plan.options["method"]["name"],
        "config": json.loads(json.dumps(plan.options)),
        "data": plan.facts,
        "commit": _commit(),
    }


def _commit() -> str:
    """The project's commit where it runs from a checkout, else its version."""
    import subprocess

    root = Path(__file__).resolve().parents[2]
    try:
        git = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return git.stdout.strip() or "unknown"


def _environment(plan: Plan, rank: int, local_rank: int) -> None:
    """The variables by which VISSL and PyTorch know a process."""
    os.environ["RANK"] = str(rank)
    os.environ["LOCAL_RANK"] = str(local_rank)
    os.environ["WORLD_SIZE"] = str(plan.placement.world_size)
    torch.set_num_threads(plan.placement.threads)
    if plan.placement.device == "cuda":
        torch.cuda.set_device(local_rank)
        torch.backends.cuda.matmul.allow_tf32 = True
    if plan.options["run"]["deterministic"]:
        torch.use_deterministic_algorithms(True, warn_only=True)


def _log_to(path: Path | None) -> None:
    """Send the log to the run's file, and nothing of it to the terminal."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers = [logging.FileHandler(path, encoding="utf-8")]
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.captureWarnings(True)


def _join(plan: Plan, rank: int, init_method: str) -> None:
    timeout = datetime.timedelta(minutes=float(plan.options["run"]["timeout_minutes"]))
    world = plan.placement.world_size
    if world == 1:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return
    dist.init_process_group(
        plan.placement.backend,
        init_method=init_method,
        rank=rank,
        world_size=world,
        timeout=timeout,
    )


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 the state that timm's mixup draws from
    torch.manual_seed(seed)


def _read_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _count_parameters(plan: Plan) -> int:
    from convit_ssl.models import ConViT

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ConViT(plan.trunk).parameters())


def write_config(plan: Plan) -> None:
    """Write the resolved configuration into the run folder, before anything runs."""
    folder = Path(plan.options["run"]["dir"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = OmegaConf.to_yaml(OmegaConf.create(plan.options))
        reasons = [f"# {name} = {c.value}: {c.reason}" for name, c in plan.choices.items()]
        (folder / "config.yaml").write_text("\n".join([*reasons, text]))
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose another with "
            "run.dir=/path"
        ) from None
