"""DINO: self-distillation with no labels (arXiv:2104.14294)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import (
    Crops,
    Progress,
    Run,
    TeacherMethod,
    TeacherOptions,
    register_method,
)
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.clip import cancel_last_layer_gradients
from convit_ssl.methods.cross_view import cross_view_entropy, split_crops
from convit_ssl.methods.gather import full_precision, world_size
from convit_ssl.methods.heads import DINOHead
from convit_ssl.methods.koleo import KoLeoLoss
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun, SmallRun
from convit_ssl.methods.schedules import CosineSchedule
from convit_ssl.options import option

__all__ = ["DINO", "DINOLoss", "DINOOptions", "DINOOutput"]


@dataclass
class DINOOptions(TeacherOptions):
    """DINO (arXiv:2104.14294). Temperatures and momenta as published for ViT-S/16."""

    out_dim: int = option(65536, "Outputs of the head.", unit="channels", least=2)
    hidden_dim: int = option(2048, "Hidden width of the head.", unit="channels", least=1)
    bottleneck_dim: int = option(
        256, "Width before the last layer of the head.", unit="channels", least=1
    )
    norm_last_layer: bool = option(
        True, "Keep the last layer's weight norms at 1, which is more stable."
    )
    use_bn: bool = option(False, "Batch normalisation in the head.")
    freeze_last_layer_epochs: float = option(
        1.0, "Freeze the last layer for this long at the start.", unit="epochs", least=0
    )
    student_temperature: float = option(0.1, "Temperature of the student's outputs.", above=0)
    warmup_teacher_temperature: float = option(
        0.04, "Temperature of the teacher's outputs at the start.", above=0
    )
    teacher_temperature: float = option(
        0.04, "Temperature of the teacher's outputs after the warm-up.", above=0
    )
    warmup_teacher_temperature_epochs: float = option(
        0.0, "Length of the linear warm-up of the teacher's temperature.", unit="epochs", least=0
    )
    center_momentum: float = option(
        0.9,
        "Momentum of the centre that is subtracted from the teacher's outputs.",
        least=0,
        most=1,
    )
    koleo_weight: float = option(
        0.0,
        "Weight of the KoLeo regulariser, which spreads features (arXiv:2304.07193), per large "
        "crop; 0.1 in DINOv2.",
        unit="factor", least=0,
    )  # fmt: skip


class DINOOutput(NamedTuple):
    """Loss and what it is made of: ``loss = teacher_entropy + kl``, in nats."""

    loss: Float[Tensor, ""]
    teacher_entropy: Float[Tensor, ""]
    kl: Float[Tensor, ""]


class DINOLoss(nn.Module):
    """Cross-entropy between the centred, sharpened teacher and the student.

    Value and gradient equal the published loop over pairs of crops; the centre
    is the buffer ``center`` (1, out_dim), as in the published checkpoints.

    Args:
        out_dim: outputs of the head (K).
        num_crops: crops the student sees, global ones first.
        num_global_crops: crops the teacher sees.
        student_temperature: divides the student's logits.
        center_momentum: of the running mean of teacher outputs.

    Raises:
        ValueError: a count, temperature or momentum out of range.

    Source: github.com/facebookresearch/dino, main_dino.py, class DINOLoss.
    """

    center: Tensor

    def __init__(
        self,
        out_dim: int,
        num_crops: int,
        num_global_crops: int = 2,
        student_temperature: int | float = 0.1,
        center_momentum: int | float = 0.9,
    ) -> None:
        super().__init__()
        if not 1 <= num_global_crops <= num_crops or num_crops < 2:
            raise ValueError(
                f"num_crops={num_crops}, num_global_crops={num_global_crops}: DINO compares "
                "crops of one image, so give at least 2 crops and 1..num_crops global ones"
            )
        if student_temperature <= 0 or not 0 <= center_momentum <= 1:
            raise ValueError(
                f"student_temperature={student_temperature} must be above 0 and "
                f"center_momentum={center_momentum} within 0..1"
            )
        self.out_dim = out_dim
        self.num_crops = num_crops
        self.num_global_crops = num_global_crops
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, out_dim))

    def forward(
        self,
        student: Float[Tensor, "rows out_dim"] | Sequence[Float[Tensor, "_ out_dim"]],
        teacher: Float[Tensor, "global_rows out_dim"] | Sequence[Float[Tensor, "_ out_dim"]],
        teacher_temperature: int | float,
        update_center: bool = True,
    ) -> DINOOutput:
        """Loss of this process's images; in training the centre moves afterwards.

        Args:
            student: logits of all crops, crop-major ``(num_crops * B, K)``, or one
                tensor per crop.
            teacher: logits of the global crops, laid out the same way.
            teacher_temperature: of this step.
            update_center: False leaves the centre, and its collective, to an
                explicit :meth:`update_center`.

        A process that skips a step must still call ``update_center(None)``: the
        centre is one collective per step on every process.
        """
        if teacher_temperature <= 0:
            raise ValueError(f"teacher_temperature={teacher_temperature} must be above 0")
        crops = split_crops(teacher, self.num_global_crops, "teacher")
        targets, entropies = [], []
        for crop in crops:
            with torch.autocast(crop.device.type, enabled=False):
                probabilities, entropy = self.sharpen(crop.detach(), teacher_temperature)
            targets.append(probabilities)
            entropies.append(entropy)
        loss = cross_view_entropy(student, targets, self.student_temperature, self.num_crops)
        entropy = torch.stack(entropies).mean()
        if self.training and update_center:
            self.update_center(teacher)
        return DINOOutput(loss, entropy, loss.detach() - entropy)

    @torch.no_grad()
    def sharpen(self, logits: Tensor, temperature: int | float) -> tuple[Tensor, Tensor]:
        """Probabilities (B, K) and their mean entropy."""
        scaled = (full_precision(logits) - self.center) / temperature
        scaled -= scaled.amax(dim=-1, keepdim=True)
        probabilities = scaled.softmax(dim=-1)
        log_normalizer = -probabilities.amax(dim=-1).log()
        entropy = log_normalizer - torch.linalg.vecdot(probabilities, scaled.to(probabilities))
        return probabilities, entropy.sum() / max(logits.shape[0], 1)

    @torch.no_grad()
    def update_center(
        self,
        teacher: Float[Tensor, "rows out_dim"] | Sequence[Float[Tensor, "_ out_dim"]] | None,
    ) -> None:
        """Moves the centre towards the mean teacher output of all processes.

        One all-reduce of ``out_dim + 1`` numbers, always; so each process calls
        this once per step, with ``None`` when it has no images. Outputs that are
        not finite on one process are left out of the mean; with none left the
        centre stays. Nothing waits for the device.
        """
        total = self.center.new_zeros(self.out_dim + 1)
        if teacher is not None:
            parts = [teacher] if isinstance(teacher, Tensor) else list(teacher)
            for part in parts:
                total[:-1] += full_precision(part.detach()).sum(dim=0)
            usable = total[:-1].sum().isfinite()
            total[:-1] = torch.where(usable, total[:-1], 0.0)
            total[-1] = torch.where(usable, float(sum(part.shape[0] for part in parts)), 0.0)
        if world_size() > 1:
            dist.all_reduce(total)
        count = total[-1]
        mean = total[:-1] / count.clamp(min=1)
        moved = self.center * self.center_momentum + mean * (1 - self.center_momentum)
        self.center.copy_(torch.where(count > 0, moved, self.center))


@register_method
class DINO(TeacherMethod[DINOOptions]):
    """DINO: a student predicts a momentum teacher's view of other crops (arXiv:2104.14294)."""

    name = "dino"
    Options = DINOOptions
    local_crops = 8
    smallest_share = 0.4
    published = PublishedRun(100, 512, 10, "as published for ViT-S/16")
    small = SmallRun(2e-3, 64)

    def __init__(self, options: DINOOptions, run: Run) -> None:
        super().__init__(options, run)
        crops = run.global_crops + run.local_crops
        self.dino = DINOLoss(
            options.out_dim,
            crops,
            run.global_crops,
            options.student_temperature,
            options.center_momentum,
        )
        self.temperature = CosineSchedule(
            options.teacher_temperature,
            options.teacher_temperature,
            run.epochs,
            min(options.warmup_teacher_temperature_epochs, run.epochs),
            options.warmup_teacher_temperature,
        )
        self.options = options
        self.koleo = KoLeoLoss()
        self._student_head: tuple[DINOHead, ...] = ()  # no submodule: it is the model's
        self._targets: Tensor | None = None
        self._teacher_temperature = options.teacher_temperature

    @classmethod
    def views(cls, options: DINOOptions, crops: Crops) -> AugmentConfig:
        """Two unequal global crops, and local ones."""
        local = (crops.local_size, crops.local_count)
        return AugmentConfig.dino(crops.global_size, *local, crops.global_scale, crops.local_scale)

    @classmethod
    def head(cls, options: DINOOptions, width: int, run: Run) -> nn.Module:
        """An MLP with a bottleneck and a normalised last layer."""
        return DINOHead(
            width,
            options.out_dim,
            options.hidden_dim,
            options.bottleneck_dim,
            use_bn=options.use_bn,
            norm_last_layer=options.norm_last_layer,
        )

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """Fewer outputs and a teacher that follows sooner; features are spread."""
        choose.pick("momentum", rule.momentum, f"{rule.why}; rises to 1 by a cosine")
        choose.whole("out_dim", rule.dino_out_dim, rule.why)
        choose.pick("teacher_temperature", rule.teacher_temperature, rule.why)
        if not small:
            return
        choose.pick("use_bn", 1, "few images and a narrow network end in one output without it")
        choose.whole("bottleneck_dim", min(width, 256), f"as the network's {width}, at most 256")
        choose.pick("koleo_weight", 0.1, "DINOv2's: without it few images end close together")
        choose.pick("weight_decay_end", 0.1, "0.4 as published is for long runs")
        choose.pick("drop_path_rate", 0.0, "a narrow network has no layer to spare")

    @classmethod
    def softmax_width(cls, options: DINOOptions) -> int:
        """The head's outputs."""
        return options.out_dim

    def attach(self, student: nn.Module) -> None:
        """Copy the student, and have its head keep the features that are to be spread."""
        super().attach(student)
        if self.options.koleo_weight:
            head = student.get_submodule("heads.0")
            assert isinstance(head, DINOHead)
            head.keep_features = True
            self._student_head = (head,)

    def observe(self, inputs: Any, progress: Progress) -> None:
        """The teacher's outputs for the global crops."""
        teacher: Any = self.teacher
        features = self.teacher_features(list(inputs[: self.dino.num_global_crops]))
        with torch.no_grad():
            self._targets = teacher.heads[0](features)
        self._teacher_temperature = self.temperature.value(progress.step, progress.steps_per_epoch)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy between teacher and student; labels are ignored."""
        assert self._targets is not None
        result = self.dino(output, self._targets, self._teacher_temperature)
        loss: Tensor = result.loss
        self.stats["teacher_entropy"] = result.teacher_entropy.detach()
        self.stats["teacher_temperature"] = self._teacher_temperature
        if not self._student_head:
            return loss
        self.stats["cross_entropy"] = loss.detach()
        return loss + self.options.koleo_weight * self._spread(self._student_head[0])

    def _spread(self, head: DINOHead) -> Tensor:
        """KoLeo of the student's features, summed over the global crops, as DINOv2 does."""
        crops = split_crops(head.take_features(), self.dino.num_crops, "features")
        spread = torch.stack([self.koleo(crop) for crop in crops[: self.dino.num_global_crops]])
        self.stats["koleo"] = spread.detach().mean()
        return spread.sum()

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the last layer for the first epochs."""
        cancel_last_layer_gradients(student, progress.epoch, self.options.freeze_last_layer_epochs)
