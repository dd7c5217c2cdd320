"""DINO: self-distillation with no labels (arXiv:2104.14294)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.cross_view import cross_view_entropy, split_crops
from convit_ssl.methods.gather import full_precision, world_size


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
                probabilities, entropy = self._sharpen(crop.detach(), teacher_temperature)
            targets.append(probabilities)
            entropies.append(entropy)
        loss = cross_view_entropy(student, targets, self.student_temperature, self.num_crops)
        entropy = torch.stack(entropies).mean()
        if self.training and update_center:
            self.update_center(teacher)
        return DINOOutput(loss, entropy, loss.detach() - entropy)

    @torch.no_grad()
    def _sharpen(self, logits: Tensor, temperature: int | float) -> tuple[Tensor, Tensor]:
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
