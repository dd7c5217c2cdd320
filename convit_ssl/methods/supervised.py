"""Supervised training and fine-tuning: labels, mixed images and a teacher's decisions."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.errors import UserError
from convit_ssl.methods.base import (
    Crops,
    LabelledOptions,
    Method,
    Progress,
    Run,
    hold_trunk,
    register_method,
)
from convit_ssl.methods.gather import full_precision
from convit_ssl.methods.scale_tables import PublishedRun
from convit_ssl.options import option

__all__ = ["Classifier", "HardDistillation", "Supervised", "SupervisedOptions"]


@dataclass
class SupervisedOptions(LabelledOptions):
    """Supervised training, also for fine-tuning. Mixup, cutmix and erasing are timm's."""

    smoothing: float = option(0.1, "Label smoothing.", least=0, most=1)
    mixup: float = option(0.8, "Alpha of mixup; 0 for none.", unit="alpha", least=0)
    cutmix: float = option(1.0, "Alpha of cutmix; 0 for none.", unit="alpha", least=0)
    erasing: float = option(
        0.25, "Probability of random erasing.", unit="probability", least=0, most=1
    )
    rand_augment: str | None = option(
        "rand-m9-mstd0.5-inc1",
        "RandAugment policy; null for none.",
        form="a policy in timm's notation",
    )
    color_jitter: float = option(
        0.4, "Strength of the colour jitter, used without RandAugment.",
        unit="strength", least=0,
    )  # fmt: skip
    repeats: int = option(
        3,
        "Repeated augmentation (arXiv:1902.05509): copies of each image in an epoch.",
        unit="copies", least=1,
    )  # fmt: skip
    ema: float | None = option(
        None, "Decay of the moving average of the weights; null keeps none.", least=0, most=1
    )
    freeze_trunk_epochs: float = option(
        0.0, "Freeze the trunk for this long at the start.", unit="epochs", least=0
    )
    distill_from: str | None = option(
        None,
        "Teacher classifier for hard-label distillation, as in DeiT.",
        form="a checkpoint with a classifier of the same classes",
    )


class Classifier(nn.Linear):
    """The linear classifier of supervised training, initialised as ConViT's own."""

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__(in_dim, num_classes)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


class HardDistillation(nn.Module):
    """Half of the loss from the labels, half from the teacher's own decisions.

    L = (1 - weight) * CE(student, labels) + weight * CE(student, argmax teacher), the hard
    distillation of DeiT (arXiv:2012.12877, equation 3) with one head, with which ConViT-S+
    reaches 82.9 (arXiv:2103.10697, section 4).

    Args:
        teacher: a classifier of the same images; kept in eval mode, without gradients, and
            out of the state dict.
        weight: share of the teacher.
        smoothing: of labels that are given as classes.

    Attributes:
        parts: in how many the teacher sees a batch, where memory is short.
    """

    def __init__(self, teacher: nn.Module, weight: float = 0.5, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is a share from 0 to 1, found {weight}")
        # In a list, so that the teacher is no submodule: it is not trained, saved or wrapped.
        self._teacher = [teacher.requires_grad_(False).eval()]
        self.weight = weight
        self.smoothing = smoothing
        self.parts = 1

    @property
    def teacher(self) -> nn.Module:
        """The teacher."""
        return self._teacher[0]

    @torch.no_grad()
    def decisions(self, images: Float[Tensor, "batch chans height width"]) -> Int[Tensor, " batch"]:
        """The teacher's classes of the images that the student sees, mixed ones too."""
        device = next(self.teacher.parameters()).device
        if device != images.device:
            self.teacher.to(images.device)
        parts = images.chunk(self.parts)
        return torch.cat([self.teacher(part).argmax(dim=1) for part in parts])

    def forward(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Tensor,
        images: Float[Tensor, "batch chans height width"],
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            logits: the student's.
            labels: classes (B,), or shares of classes (B, classes) after mixup and cutmix.
            images: what the student saw.

        Raises:
            ValueError: teacher and student have different numbers of classes.
        """
        decided = self.decisions(images)
        if int(decided.max()) >= logits.shape[1]:
            raise ValueError(
                f"the teacher predicted class {int(decided.max())}, but the student has "
                f"{logits.shape[1]} classes; both must be trained on the same classes"
            )
        from_labels = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        from_teacher = F.cross_entropy(logits, decided)
        return (1 - self.weight) * from_labels + self.weight * from_teacher


@register_method
class Supervised(Method[SupervisedOptions]):
    """Cross-entropy with label smoothing, on class indices or on the soft targets of mixup."""

    name = "supervised"
    Options = SupervisedOptions
    labelled = True
    global_crops = 1
    published = PublishedRun(300, 1024, 40, "as published")

    def __init__(self, options: SupervisedOptions, run: Run) -> None:
        super().__init__(options, run)
        self.options = options
        self.distillation: HardDistillation | None = None
        if options.distill_from:
            teacher = _load_teacher(options.distill_from, run)
            self.distillation = HardDistillation(teacher, smoothing=options.smoothing)
        self._images: Any = None

    @classmethod
    def views(cls, options: SupervisedOptions, crops: Crops) -> AugmentConfig:
        """DeiT's recipe."""
        colours = (options.rand_augment, options.color_jitter, options.erasing)
        return AugmentConfig.supervised(crops.global_size, *colours, crops.global_scale)

    @classmethod
    def head(cls, options: SupervisedOptions, width: int, run: Run) -> nn.Module:
        """A linear classifier."""
        return Classifier(width, run.num_classes)

    def observe(self, inputs: Any, progress: Progress) -> None:
        """Keep the images for the teacher."""
        self._images = inputs

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over images. Targets (B,) int64, or (B, classes) float32."""
        output = full_precision(output)
        if target.dim() == 2:
            target = target.to(output.dtype)
        if self.training and self.distillation is not None:
            self.distillation.parts = self.parts
            loss: Tensor = self.distillation(output, target, self._images)
            return loss
        smoothing = self.options.smoothing if self.training and target.dim() == 1 else 0.0
        return F.cross_entropy(output, target, label_smoothing=smoothing)

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the trunk for the first epochs: an optimiser skips what has no gradient."""
        if progress.epoch < self.options.freeze_trunk_epochs:
            hold_trunk(student)


def _load_teacher(path: str, run: Run) -> nn.Module:
    assert run.load_classifier is not None
    model: Any = run.load_classifier(path)
    if not model.config.num_classes:
        raise UserError(
            f"method.distill_from={path} contains no classifier; give a checkpoint of "
            f"convit_supervised or convit_finetune, or released weights with their head"
        )
    network: nn.Module = model
    return network
