"""VISSL's self-supervision task with our data, optimisers and losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from classy_vision.tasks import register_task
from torch import Tensor, nn
from torch.utils.data import DataLoader
from vissl.trainer.train_task import SelfSupervisionTask

from convit_ssl.adapters.accumulation import check_parts
from convit_ssl.adapters.gradients import average_gradients, average_in_bf16, settle_buckets
from convit_ssl.adapters.inputs import TaskInputs, open_inputs
from convit_ssl.adapters.optimizers import parameter_groups
from convit_ssl.adapters.side_by_side import Shares, Threads
from convit_ssl.adapters.weights import initialise
from convit_ssl.adapters.whole_images import whole_features
from convit_ssl.errors import UserError
from convit_ssl.methods import (
    Method,
    SupervisedOptions,
    clip_each,
    clip_global,
    options_of,
    test_every,
)
from convit_ssl.models import ConViT
from convit_ssl.models.compiling import compile_options
from convit_ssl.models.trunks import OtherTrunk
from convit_ssl.schema_resolved import Resolved

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@register_task("convit_ssl_task")
class ConViTSSLTask(SelfSupervisionTask):
    """Holds model, data, loss and optimiser for VISSL's trainer.

    Our options are in ``CONVIT_SSL`` of VISSL's configuration. Differences from VISSL's own task:
    data sets and loaders (kept between epochs), parameter groups, precision, and a loss that may
    contain a teacher.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options: Resolved = config.CONVIT_SSL
        self.inputs: TaskInputs
        self.accumulate: int = self.options.optim.accumulate
        # Makes the passes of a step whose shares of the batch have a thread each.
        self.shares: Callable[[Any, Any], Shares] | None = None
        self.skipped_steps = 0
        self.grad_norm: Tensor | None = None
        self.model_ema: Any = None
        dtype = PRECISIONS[self.options.run.precision]
        self.autocast_dtype = dtype
        scaling = dtype is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaling)

    def set_amp_args(self) -> None:
        """Ignored: precision is set by `run.precision`, since VISSL's AMP is fp16 on CUDA only."""
        self.amp_args, self.amp_type = None, None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of forward passes."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def share_out(self, threads: Threads | None) -> None:
        """From the next step on, compute shares of a batch in parallel.

        Args:
            threads: to use; None computes the batch as a whole.
        """
        shares = None if threads is None else partial(Shares, threads, context=self._uncached)
        self.shares = self.base_loss.shares = shares

    def _uncached(self) -> contextlib.AbstractContextManager[Any]:
        """Like `autocast`, without its cache: threads share it, and each would clear it."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype, cache_enabled=False)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return len(self.dataloaders["train"])

    def _build_phases(self) -> list[dict[str, bool]]:
        """One phase per epoch, followed by a test if one is due; after the last it always is."""
        every = test_every(self.options.method)
        phases = []
        for epoch in range(1, self.num_train_phases + 1):
            phases.append({"train": True})
            if self.config.TEST_MODEL and (epoch % every == 0 or epoch == self.num_train_phases):
                phases.append({"train": False})
        return phases

    def build_datasets(self, current_train_phase_idx: int = 0) -> tuple[dict[str, Any], Any]:
        """Our image folders with the method's augmentation."""
        self.inputs = open_inputs(self.options, self.device)
        for meter in self.meters:
            meter.num_holdout = self.inputs.num_holdout
        keys = {"input": ["data"], "target": ["label"]}
        return {split.lower(): self.inputs.datasets[split] for split in self.available_splits}, keys

    def build_dataloaders(
        self, pin_memory: bool, current_train_phase_idx: int = 0
    ) -> dict[str, DataLoader[Any]]:
        """One loader per split; its workers live as long as the run."""
        return {s.lower(): self.inputs.loader(s, pin_memory) for s in self.available_splits}

    def set_epoch(self, phase_type: str, epoch: int, start_iter: int, train_phase_idx: int) -> None:
        """Let the next iterator yield the images of an epoch, starting at a position."""
        if phase_type == "train":
            self.inputs.set_position(train_phase_idx, start_iter)

    def _compute_start_iter_from_checkpoint(self, phase_type: str) -> int:
        """The step within the epoch, even if the batch size of the checkpoint differs.

        The saving hook recounts steps when training starts; VISSL asks before that, and if the
        batch is smaller than at the start of the run, its answer is negative or beyond the last
        batch.
        """
        start: int = super()._compute_start_iter_from_checkpoint(phase_type)
        return min(max(start, 0), len(self.dataloaders[phase_type]) - 1)

    def on_device(self, views: Any, target: Tensor) -> tuple[Any, Tensor]:
        """Move a batch to the device, finish its augmentation there, and mix it if requested."""
        late = self.train and self.accumulate > 1
        return self.inputs.on_device(views, target, self.train, late)

    def _build_model(self) -> nn.Module:
        # The same start on every process, since a teacher is copied before DDP could align them.
        torch.manual_seed(self.config.SEED_VALUE)
        model: nn.Module = super()._build_model()
        check_parts(model, self.accumulate)
        initialise(model, self.options)
        if self.options.run.compile:
            model.get_submodule("trunk").compile(options=compile_options())
        if (decay := self._ema_decay()) is not None:
            from timm.utils import ModelEmaV3

            self.model_ema = ModelEmaV3(model, decay=decay)
        return model

    def _ema_decay(self) -> float | None:
        """Decay of the weight average that supervised training may keep."""
        method = options_of(self.options.method)
        return method.ema if isinstance(method, SupervisedOptions) else None

    def init_distributed_data_parallel_model(self) -> None:
        """Shard with FSDP2, or wrap in DDP, optionally with gradient exchange in bf16."""
        run = self.options.run
        if run.fsdp:
            self._shard()
            return
        super().init_distributed_data_parallel_model()
        if self.distributed_model is not None:
            if run.gradients == "bf16":
                self.distributed_model.register_comm_hook(None, average_in_bf16)
            settle_buckets(self.distributed_model)

    def _shard(self) -> None:
        # Everything is built and loaded by now, so each process cuts its share of the whole.
        from convit_ssl.adapters.sharding import shard_models, shard_state

        run = self.options.run
        teacher = self.base_loss.teacher
        shares = shard_models(self.base_model, teacher, self.device.type, run.gradients)
        state = self.optimizer.optimizer.state
        self.prepare_optimizer()
        self.optimizer.optimizer.state.update(shard_state(state, shares))
        self.distributed_model = self.base_model

    def prepare_optimizer(self) -> None:
        """Build parameter groups with layer decay and our exemptions from weight decay."""
        schedulers = self.optimizer_schedulers
        trunk = getattr(self.base_model.trunk, "base_model", self.base_model.trunk)
        depth = trunk.config.depth if isinstance(trunk, ConViT) else 0
        groups = parameter_groups(
            self.base_model,
            schedulers["lr"],
            schedulers["weight_decay"],
            self.options.optim.layer_decay,
            depth,
            trunk if isinstance(trunk, OtherTrunk) else None,
            self.options.optim.name == "muon",
        )
        self.optimizer.set_param_groups(groups)

    def _build_loss(self) -> Method[Any]:
        loss: Method[Any] = super()._build_loss()
        loss.parts = self.accumulate
        loss.attach(self.base_model)
        loss.prepare(partial(whole_features, options=self.options, device=self.device))
        return loss

    def average_gradients(self) -> None:
        """Average gradients over processes after a step in parts (without FSDP)."""
        if self.distributed_model is None or self.options.run.fsdp:
            return
        dtype = torch.bfloat16 if self.options.run.gradients == "bf16" else None
        average_gradients(self.base_model.parameters(), dtype)

    def clip_gradients(self) -> None:
        """Clip gradients as configured, and keep the norm for the log."""
        limit = self.options.optim.clip_grad
        if limit is None:
            return
        clip = clip_each if self.options.optim.clip_mode == "parameter" else clip_global
        self.grad_norm = clip(self.base_model.parameters(), float(limit))

    def may_step(self, loss: Tensor) -> bool:
        """Whether to take the step. Waits for the loss only with `skip_nan_steps`.

        Raises:
            UserError: too many steps had a loss that is not finite.
        """
        allowed = self.options.optim.skip_nan_steps
        if allowed == 0:
            return True
        finite = torch.isfinite(loss).to(torch.int32)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        if bool(finite):
            return True
        self.skipped_steps += 1
        self.last_batch.skipped = True
        if self.skipped_steps > allowed:
            raise UserError(
                f"the loss was not finite in {self.skipped_steps} steps, and "
                f"optim.skip_nan_steps={allowed} allows no more; lower optim.lr or use "
                "run.precision=fp32"
            )
        return False
