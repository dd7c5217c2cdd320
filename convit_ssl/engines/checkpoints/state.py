"""The complete state of a run: what a checkpoint holds, and putting it back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convit_ssl.evaluation import processes
from convit_ssl.evaluation.results import versions

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


FORMAT = 1


def run_state(
    task: ConViTSSLTask, entry: dict[str, Any], within_phase: bool, losses: tuple[float, int]
) -> dict[str, Any]:
    """Everything that a run needs to go on, in VISSL's layout with an entry of ours.

    A collective call: every process gives its random state.

    Args:
        task: the task.
        entry: the ``convit_ssl`` entry: model, data, configuration, figures.
        within_phase: the epoch or the test that is under way is not over. A test is done again.
        losses: sum and number of this process's losses in the epoch that is under way.
    """
    back = 1 if within_phase else 0
    epoch_back = back if task.train else 0
    classy = {
        "train": True,
        "base_model": task.base_model.get_classy_state(),
        "meters": [],
        "optimizer": task.optimizer.get_classy_state(),
        "phase_idx": task.phase_idx - back,
        "train_phase_idx": task.train_phase_idx - epoch_back,
        "num_updates": task.num_updates,
        "losses": [],
    }
    state = {
        "phase_idx": task.phase_idx - back,
        "train_phase_idx": task.train_phase_idx - epoch_back,
        "iteration": task.iteration,
        "iteration_num": task.local_iteration_num,
        "loss": task.base_loss.state_dict(),
        "classy_state_dict": classy,
        "convit_ssl": {
            "format": FORMAT,
            **entry,
            "scaler": task.scaler.state_dict(),
            "skipped_steps": task.skipped_steps,
            "ranks": processes.gather({"random": random_state(), "losses": list(losses)}),
            "versions": versions(),
        },
    }
    if task.model_ema is not None:
        state["ema"] = task.model_ema.module.trunk.state_dict()
    if task.options.run.fsdp:
        from convit_ssl.adapters.sharding import whole

        whole_state: dict[str, Any] = whole(state)
        return whole_state
    return state


def restore(task: ConViTSSLTask, state: dict[str, Any]) -> tuple[float, int]:
    """Put back what VISSL does not: loss scaler, average of the weights, random state.

    Returns:
        Sum and number of this process's losses in the epoch that is under way.
    """
    entry = state["convit_ssl"]
    task.scaler.load_state_dict(entry["scaler"])
    task.skipped_steps = entry["skipped_steps"]
    if task.model_ema is not None and "ema" in state:
        task.model_ema.module.trunk.load_state_dict(state["ema"])
    ranks = entry["ranks"]
    if len(ranks) == processes.world_size():
        own = ranks[processes.rank()]
        set_random_state(own["random"])
        return float(own["losses"][0]), int(own["losses"][1])
    # Another number of processes: no state to take over, so one that each can compute.
    seed = task.config.SEED_VALUE + task.iteration * 1009 + processes.rank()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 the state that timm's mixup draws from
    random.seed(seed)
    return sum(r["losses"][0] for r in ranks) / len(ranks), int(ranks[0]["losses"][1])


def random_state() -> dict[str, Any]:
    """The random states of this process, in types that load without pickle."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position)],
        "numpy_gauss": [int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    kind, keys, position = state["numpy"]
    has_gauss, gauss = state["numpy_gauss"]
    legacy = (kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss)
    np.random.set_state(legacy)  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def on_cpu(value: Any) -> Any:
    """A copy of a state on the CPU, which training can no longer change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_cpu(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(child) for child in value)
    return value
