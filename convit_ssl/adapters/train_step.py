"""One optimiser step, as VISSL's trainer calls it.

Differences from VISSL's ``standard_train_step`` (see docs/DEVIATIONS.md): bf16 autocast on any
device, batches in parts or in thread shares, losses with a teacher, and no synchronisation with the
device except every `task.log_every` steps, when the loss is read.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from classy_vision.optim.param_scheduler import UpdateInterval
from torch import Tensor
from vissl.hooks import SSLClassyHookFunctions as Hooks
from vissl.trainer.train_steps import register_train_step

from convit_ssl.adapters.accumulation import Passes
from convit_ssl.adapters.gradients import GradientBuffers
from convit_ssl.adapters.schedulers import Position
from convit_ssl.adapters.side_by_side import Shares
from convit_ssl.methods import Method, Progress
from convit_ssl.methods.base import hold_trunk

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


@register_train_step("convit_ssl_train_step")
def train_step(task: ConViTSSLTask) -> Any:
    """Read a batch; learn from it in a train phase, measure it in a test phase."""
    views, target, index = next(task.data_iterator)
    if task.base_loss.by_number and task.train:
        target = index
    views, target = task.on_device(views, target)
    sample = {"input": views, "target": target, "data_idx": index}
    if task.base_loss.training != task.train:
        task.base_loss.train(task.train)
    task.last_batch = SimpleNamespace(sample=sample, target=target, loss=None, skipped=False)
    if task.train:
        _learn(task, views, target)
    else:
        _measure(task, views, target)
    return task


def _measure(task: ConViTSSLTask, views: Any, target: Tensor) -> None:
    with torch.no_grad(), task.autocast():
        output = _single(task.model(views))
        readable = target >= 0  # others are black, and no part of any figure
        if readable.all():
            loss = task.loss(output, target)
        elif readable.any():
            loss = task.loss(_rows(output, readable), target[readable])
        else:
            loss = torch.zeros((), device=target.device)
    task.last_batch.model_output = output
    task.last_batch.loss = loss.detach().float()
    task.run_hooks(Hooks.on_forward.name)
    for meter in task.meters:
        meter.update(output, target, index=task.last_batch.sample["data_idx"])
    task.run_hooks(Hooks.on_loss_and_meter.name)


def _rows(output: Any, chosen: Tensor) -> Any:
    return [o[chosen] for o in output] if isinstance(output, list) else output[chosen]


def _learn(task: ConViTSSLTask, views: Any, target: Tensor) -> None:
    loss_module: Method[Any] = task.base_loss
    progress = Progress(task.iteration, task.steps_per_epoch)
    loss_module.on_views(task.base_model, views, progress)
    passes = _passes(task, views)
    buffers = _without_gradients(task)
    if passes is not None:
        passes.forward()
    with task.autocast():
        output = _single(task.model(views) if passes is None else passes.output())
        task.last_batch.model_output = output
        loss_module.observe(views, progress)
        task.run_hooks(Hooks.on_forward.name)
        loss = task.loss(output, target)
    task.scaler.scale(loss).backward()
    if passes is not None:
        passes.backward()
        if buffers is not None:
            buffers.drop_untouched()
        task.average_gradients()
    total = loss.detach().float()
    task.last_batch.loss = total
    task.run_hooks(Hooks.on_loss_and_meter.name)
    task.scaler.unscale_(task.optimizer.optimizer)
    task.clip_gradients()
    loss_module.on_gradients(task.base_model, progress)
    if progress.epoch < task.options.optim.freeze_epochs:
        hold_trunk(task.base_model)
    task.run_hooks(Hooks.on_backward.name)
    if task.may_step(total):
        _optimizer_step(task)
        loss_module.on_update(task.base_model, progress)
        if task.model_ema is not None:
            task.model_ema.update(task.base_model)
        task.run_hooks(Hooks.on_update.name)
    task.num_updates += task.get_global_batchsize()


def _passes(task: ConViTSSLTask, views: Any) -> Passes | Shares | None:
    """How the batch is split for the trunk; None if it is not."""
    if task.accumulate > 1:
        return Passes(task, views)
    made: Shares | None = None if task.shares is None else task.shares(task.base_model, views)
    return made


def _without_gradients(task: ConViTSSLTask) -> GradientBuffers | None:
    """Clear the gradients; a step in parts on a CPU keeps their memory."""
    optimizer = task.optimizer.optimizer
    if task.accumulate > 1 and task.device.type == "cpu" and not task.options.run.fsdp:
        return GradientBuffers(optimizer)
    optimizer.zero_grad(set_to_none=True)
    return None


def _optimizer_step(task: ConViTSSLTask) -> None:
    """Take an optimiser step with the current schedule values, through the loss scaler for fp16."""
    optimizer = task.optimizer
    where = Position(task.iteration, task.max_iteration, task.steps_per_epoch)
    optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.STEP))
    task.scaler.step(optimizer.optimizer)
    task.scaler.update()


def _single(output: Any) -> Any:
    """VISSL's models return lists; a single entry is the output itself."""
    return output[0] if isinstance(output, list) and len(output) == 1 else output
