"""The losses of `convit_ssl.methods` as VISSL losses, registered by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from classy_vision.losses import register_loss
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.adapters.accumulation import features_in_parts
from convit_ssl.adapters.heads import VisslDINOHead, VisslSwAVHead
from convit_ssl.adapters.method_loss import MethodLoss, Progress, TeacherLoss
from convit_ssl.errors import UserError
from convit_ssl.evaluation.finetune import HardDistillation
from convit_ssl.export import load_trunk
from convit_ssl.methods import (
    BarlowTwinsLoss,
    CosineSchedule,
    DINOLoss,
    KoLeoLoss,
    MoCoV3Loss,
    NTXentLoss,
    SwAVLoss,
    SwAVQueue,
    cancel_last_layer_gradients,
)
from convit_ssl.methods.cross_view import split_crops


@register_loss("convit_ssl_dino")
class VisslDINOLoss(TeacherLoss):
    """DINO; see `convit_ssl.methods.DINOLoss` and the options in configs/method/dino.yaml."""

    def __init__(
        self,
        out_dim: int,
        global_crops: int,
        local_crops: int,
        student_temperature: float,
        center_momentum: float,
        koleo_weight: float,
        warmup_teacher_temperature: float,
        teacher_temperature: float,
        warmup_teacher_temperature_epochs: float,
        freeze_last_layer_epochs: float,
        momentum: float,
        momentum_end: float,
        epochs: float,
    ) -> None:
        super().__init__(momentum, momentum_end, epochs)
        crops = global_crops + local_crops
        self.dino = DINOLoss(out_dim, crops, global_crops, student_temperature, center_momentum)
        self.temperature = CosineSchedule(
            teacher_temperature,
            teacher_temperature,
            epochs,
            min(warmup_teacher_temperature_epochs, epochs),
            warmup_teacher_temperature,
        )
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.global_crops = global_crops
        self.koleo_weight = koleo_weight
        self.koleo = KoLeoLoss()
        self._student_head: tuple[VisslDINOHead, ...] = ()  # no submodule: it is the model's
        self._targets: Tensor | None = None
        self._teacher_temperature = teacher_temperature

    def attach(self, student: nn.Module) -> None:
        """Copy the student, and have its head keep the features that are to be spread."""
        super().attach(student)
        if self.koleo_weight:
            head = student.heads[0]  # type: ignore[index,union-attr]
            assert isinstance(head, VisslDINOHead)
            head.keep_features = True
            self._student_head = (head,)

    def observe(self, inputs: Any, progress: Progress) -> None:
        """The teacher's outputs for the global crops."""
        teacher: Any = self.teacher
        features = features_in_parts(teacher, list(inputs[: self.global_crops]), self.parts)
        with torch.no_grad():
            (self._targets,) = teacher.heads_forward(features, teacher.heads)
        self._teacher_temperature = self.temperature.value(progress.step, progress.steps_per_epoch)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy between teacher and student; labels are not looked at."""
        assert self._targets is not None
        result = self.dino(output, self._targets, self._teacher_temperature)
        self.stats["teacher_entropy"] = result.teacher_entropy.detach()
        self.stats["teacher_temperature"] = self._teacher_temperature
        if not self._student_head:
            return result.loss
        self.stats["cross_entropy"] = result.loss.detach()
        return result.loss + self.koleo_weight * self._spread(self._student_head[0])

    def _spread(self, head: VisslDINOHead) -> Tensor:
        """KoLeo of the student's features, summed over the global crops, as DINOv2 does."""
        crops = split_crops(head.take_features(), self.dino.num_crops, "features")
        spread = torch.stack([self.koleo(crop) for crop in crops[: self.global_crops]])
        self.stats["koleo"] = spread.detach().mean()
        return spread.sum()

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the last layer for the first epochs."""
        cancel_last_layer_gradients(student, progress.epoch, self.freeze_last_layer_epochs)


@register_loss("convit_ssl_simclr")
class VisslSimCLRLoss(MethodLoss):
    """SimCLR; see `convit_ssl.methods.NTXentLoss`."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.ntxent = NTXentLoss(temperature)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Contrast of two views; labels are not looked at."""
        return self.ntxent(*output.chunk(2))


@register_loss("convit_ssl_moco_v3")
class VisslMoCoV3Loss(TeacherLoss):
    """MoCo v3; see `convit_ssl.methods.MoCoV3Loss`."""

    def __init__(
        self, temperature: float, momentum: float, momentum_end: float, epochs: float
    ) -> None:
        super().__init__(momentum, momentum_end, epochs)
        self.contrast = MoCoV3Loss(temperature)
        self._keys: tuple[Tensor, ...] = ()

    def observe(self, inputs: Any, progress: Progress) -> None:
        """Keys of both views from the momentum encoder, without its predictor."""
        teacher: Any = self.teacher
        (features,) = features_in_parts(teacher, list(inputs), self.parts)
        with torch.no_grad():
            self._keys = teacher.heads[0].project(features).chunk(2)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Symmetric contrast; labels are not looked at."""
        return self.contrast(*output.chunk(2), *self._keys)

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Move the momentum encoder by the next step's momentum.

        The release moves it before it computes a step's keys (moco-v3, moco/builder.py, line 90),
        which is after the update of the step before.
        """
        super().on_update(student, replace(progress, step=progress.step + 1))


@register_loss("convit_ssl_swav")
class VisslSwAVLoss(MethodLoss):
    """SwAV; see `convit_ssl.methods.SwAVLoss`, and `SwAVQueue` for small batches."""

    def __init__(
        self,
        global_crops: int,
        local_crops: int,
        temperature: float,
        epsilon: float,
        sinkhorn_iterations: int,
        freeze_prototypes_epochs: float,
        queue_length: int,
        queue_start_epoch: float,
    ) -> None:
        super().__init__()
        crops = global_crops + local_crops
        self.swav = SwAVLoss(crops, global_crops, temperature, epsilon, sinkhorn_iterations)
        if queue_length < 0:
            raise ValueError(f"queue_length={queue_length}: give the images to hold, or 0 for none")
        self.freeze_prototypes_epochs = freeze_prototypes_epochs
        self.queue_length = queue_length
        self.queue_start_epoch = queue_start_epoch
        self.queue: SwAVQueue | None = None
        self._student_head: tuple[VisslSwAVHead, ...] = ()  # no submodule: it is the model's
        self._epoch = 0.0
        self._embeddings: list[Tensor] = []  # of this step, for the queue

    def attach(self, student: nn.Module) -> None:
        """Have the head keep the embeddings that are to be queued."""
        if self.queue_length:
            head = student.heads[0]  # type: ignore[index,union-attr]
            assert isinstance(head, VisslSwAVHead)
            head.keep_embeddings = True
            self._student_head = (head,)
            width, globals_ = head.prototypes.in_features, self.swav.num_global_crops
            self.queue = SwAVQueue(self.queue_length, width, globals_)
            self.queue.to(head.prototypes.weight.device)

    def observe(self, inputs: Any, progress: Progress) -> None:
        """How far training is, by which the queue is used."""
        self._epoch = progress.epoch

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Swapped prediction of assignments; labels are not looked at."""
        if self.queue is None:
            return self.swav(output)
        head = self._student_head[0]
        assert head.embeddings is not None
        crops = split_crops(head.embeddings, self.swav.num_crops, "embeddings")
        self._embeddings = crops[: self.swav.num_global_crops]
        used = self.queue.full() and self._epoch >= self.queue_start_epoch
        return self.swav(output, self._queued(self.queue, head) if used else ())

    @torch.no_grad()
    def _queued(self, queue: SwAVQueue, head: VisslSwAVHead) -> list[Tensor]:
        """Scores of the queue by the prototypes of now, for each global crop."""
        prototypes: Any = head.prototypes.weight
        if hasattr(prototypes, "full_tensor"):  # a share of FSDP
            prototypes = prototypes.full_tensor()
        return list(F.linear(queue.share(), prototypes))

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the prototypes for the first epochs."""
        if progress.epoch < self.freeze_prototypes_epochs:
            for name, parameter in student.named_parameters():
                if ".prototypes." in name:
                    parameter.grad = None

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Put the prototypes back on the unit sphere, and the embeddings into the queue."""
        student.heads[0].normalize_prototypes()  # type: ignore[index,union-attr]
        # Only a step that is taken fills the queue: a skipped one may hold what is not finite.
        if self.queue is not None:
            self.queue.push(self._embeddings)


@register_loss("convit_ssl_barlow_twins")
class VisslBarlowTwinsLoss(MethodLoss):
    """Barlow Twins; see `convit_ssl.methods.BarlowTwinsLoss`."""

    def __init__(self, redundancy_weight: float, scale_loss: float = 1.0) -> None:
        super().__init__()
        self.barlow_twins = BarlowTwinsLoss(redundancy_weight, scale_loss)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Redundancy reduction between two views; labels are not looked at."""
        return self.barlow_twins(*output.chunk(2))


@register_loss("convit_ssl_supervised")
class SupervisedLoss(MethodLoss):
    """Cross-entropy with label smoothing, on class indices or on the soft targets of mixup.

    Args:
        smoothing: of class indices; mixup smooths its own targets.
        freeze_trunk_epochs: epochs in which only the classifier learns.
        distill_from: a checkpoint of a classifier of the same classes, which teaches by its
            decisions (hard distillation, arXiv:2012.12877, equation 3).
    """

    def __init__(
        self,
        smoothing: float,
        freeze_trunk_epochs: float = 0.0,
        distill_from: str | None = None,
    ) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.freeze_trunk_epochs = freeze_trunk_epochs
        self.distillation = (
            HardDistillation(_load_classifier(distill_from), smoothing=smoothing)
            if distill_from
            else None
        )
        self._images: Any = None

    def observe(self, inputs: Any, progress: Progress) -> None:
        """Keep the images for the teacher."""
        self._images = inputs

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over images. Targets (B,) int64, or (B, classes) float32."""
        if self.training and self.distillation is not None:
            self.distillation.parts = self.parts
            return self.distillation(output.float(), target, self._images)
        smoothing = self.smoothing if self.training and target.dim() == 1 else 0.0
        return F.cross_entropy(output.float(), target, label_smoothing=smoothing)

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the trunk for the first epochs: an optimiser skips what has no gradient."""
        if progress.epoch < self.freeze_trunk_epochs:
            for parameter in student.trunk.parameters():  # type: ignore[union-attr]
                parameter.grad = None


def _load_classifier(path: str) -> nn.Module:
    model = load_trunk(path)
    if not model.config.num_classes:
        raise UserError(
            f"method.distill_from={path} holds no classifier; give a checkpoint of "
            "convit_supervised or convit_finetune, or released weights with their head"
        )
    return model


@register_loss("convit_ssl_probes")
class ProbesLoss(MethodLoss):
    """The sum of the probes' cross-entropies: each learns as if it were alone."""

    def forward(self, output: list[Tensor], target: Tensor) -> Tensor:
        """Sum over the features' probes (B, probes, classes) of their mean cross-entropy."""
        losses = [
            F.cross_entropy(logits.float().flatten(0, 1), target.repeat_interleave(logits.shape[1]))
            * logits.shape[1]
            for logits in output
        ]
        return torch.stack(losses).sum()
