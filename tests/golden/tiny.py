"""Tasks of every method, small and in known numbers: counted weights, counted images."""

from __future__ import annotations

import atexit
import copy
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What makes each method small, beside `SMALL`.
SMALL = """
data=digits run=cpu trunk=convit_nano trunk.embed_dim=16 trunk.num_heads=4 trunk.depth=3
trunk.num_gpsa_layers=2 trunk.patch_size=4 crops.global_size=8 optim.batch_size=100 optim.lr=2e-3
optim.epochs=4 optim.warmup_epochs=1 run.threads=1 run.precision=fp32 data.workers=0 run.dir=/runs/x
"""
HEAD = "method.hidden_dim=16 method.out_dim=12"
LOCAL = "crops.local_count=2 crops.local_size=4"
TINY = {
    "convit_barlow_twins": HEAD,
    "convit_diet": "",
    "convit_distill": "method.patch_weight=0.5",
    "convit_dino": f"{HEAD} {LOCAL} method.bottleneck_dim=8 method.koleo_weight=0.1",
    "convit_ibot": f"{HEAD} {LOCAL} method.bottleneck_dim=8 method.koleo_weight=0.1",
    "convit_lejepa": f"{HEAD} {LOCAL} method.directions=8",
    "convit_linear": "method.learning_rates=[0.1,1.0]",
    "convit_moco_v3": HEAD,
    "convit_simclr": HEAD,
    "convit_supervised": "method.mixup=0.8 method.cutmix=1.0",
    "convit_swav": f"{HEAD} {LOCAL} method.prototypes=20 method.queue_length=24 "
    "method.queue_start_epoch=0.5",
    "convit_vicreg": HEAD,
}
IMAGES = 6  # of a step


def tiny_task(experiment: str, *more: str) -> Any:
    """VISSL's task of an experiment, ready to train from counted weights."""
    return ready(copy.deepcopy(tiny_config(experiment, more)))


def ready(options: dict[str, Any]) -> Any:
    """The task of a configuration of VISSL's, ready to train from counted weights."""
    from convit_ssl import adapters

    adapters.register()
    from vissl.config import AttrDict
    from vissl.trainer.trainer_main import build_task
    from vissl.utils.hydra_config import infer_and_assert_hydra_config

    config = AttrDict(options)
    infer_and_assert_hydra_config(config)
    task = build_task(config)
    task.set_checkpoint_path(None)
    task.set_checkpoint_folder("/runs/x")
    task.set_hooks([])
    task.prepare(pin_memory=False)
    count_weights(task)
    task.init_distributed_data_parallel_model()
    task.iteration, task.train, task.max_iteration = 0, True, 40
    task.dataloaders = {"train": [None] * 10}  # ten steps an epoch
    task.base_model.train()
    return task


@functools.cache
def tiny_config(experiment: str, more: tuple[str, ...]) -> dict[str, Any]:
    """VISSL's configuration of an experiment made small."""
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    words = f"config={experiment} {SMALL} {TINY[experiment]}".split()
    if experiment == "convit_distill":
        words.append(f"teacher={tiny_teacher()}")
    return make_plan(compose_experiment([*words, *more])).config


@functools.cache
def tiny_teacher() -> str:
    """A file of a network in counted weights, for as long as this process lives."""
    from convit_ssl.export.save import save_trunk
    from convit_ssl.models import create_model

    sizes = {"embed_dim": 16, "depth": 2, "num_gpsa_layers": 1, "patch_size": 2, "img_size": 8}
    teacher = create_model("convit_nano", num_classes=0, **sizes)
    count_parameters(teacher)
    with torch.no_grad():
        teacher.patch_embed.proj.bias.zero_()
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_trunk(teacher, Path(folder) / "teacher.torch")
    return f"{folder}/teacher.torch"


def twenty_steps(task: Any) -> dict[str, Any]:
    """Train on counted images; losses, and the length of all weights at the end."""
    from convit_ssl.adapters.train_step import train_step

    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  the state that timm's mixup draws from
    task.data_iterator = counted_batches(task)
    found = []
    for _ in range(20):
        train_step(task)
        task.iteration += 1
        found.append(round(float(task.last_batch.loss), 6))
    squares = [p.detach().double().square().sum() for p in task.base_model.parameters()]
    return {"loss": found, "norm": round(float(torch.stack(squares).sum().sqrt()), 6)}


def count_weights(task: Any) -> None:
    """Weights that depend on their place alone, in the student and so in its teacher."""
    teacher = getattr(task.base_loss, "teacher", None)
    for model in (task.base_model, *([] if teacher is None else [teacher])):
        count_parameters(model)


@torch.no_grad()
def count_parameters(model: nn.Module) -> None:
    """Matrices that depend on their place alone."""
    for start, (name, weight) in enumerate(sorted(model.named_parameters())):
        if weight.dim() > 1 and not name.endswith("weight_g"):
            scale = 2.0 / weight[0].numel() ** 0.5
            weight.copy_(counted(weight.shape, start) * scale)


def counted_batches(task: Any, start: int = 0) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Batches as a loader gives them, of images that depend on the batch's number alone."""
    crops = task.options.crops
    sizes = [crops.global_size] * crops.global_count + [crops.local_size] * crops.local_count
    for step in range(start, 10**6):
        shapes = [torch.Size((IMAGES, 3, side, side)) for side in sizes]
        views = [_bytes(shape, 1000 * step + 7 * view) for view, shape in enumerate(shapes)]
        target = (torch.arange(IMAGES) + step) % 10
        yield views[0] if len(views) == 1 else views, target, torch.arange(IMAGES)


def counted(shape: torch.Size, start: int) -> Tensor:
    """Values in -0.5..0.5 that depend on the place alone."""
    count = torch.arange(start, start + shape.numel(), dtype=torch.float64)
    return ((count * 37 % 101) / 101 - 0.5).view(shape).float()


def _bytes(shape: torch.Size, start: int) -> Tensor:
    count = torch.arange(start, start + shape.numel())
    return ((count * count * 31 + count * 17) % 251).view(shape).to(torch.uint8)
