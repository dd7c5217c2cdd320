"""SwAV: swapped prediction of balanced cluster assignments (arXiv:2006.09882)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.methods.base import Crops, Method, Progress, Run, register_method
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.cross_view import cross_view_entropy, split_crops
from convit_ssl.methods.embedding_queue import SwAVQueue
from convit_ssl.methods.gather import full_precision, world_size
from convit_ssl.methods.heads import mlp
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["SwAV", "SwAVHead", "SwAVLoss", "SwAVOptions", "SwAVQueue", "sinkhorn"]


@dataclass
class SwAVOptions(MethodOptions):
    """SwAV (arXiv:2006.09882)."""

    temperature: float = option(0.1, "Temperature of the similarities to prototypes.", above=0)
    hidden_dim: int = option(2048, "Hidden width of the head.", unit="channels", least=1)
    out_dim: int = option(128, "Outputs of the head.", unit="channels", least=1)
    prototypes: int = option(3000, "Number of prototypes that views are assigned to.", least=2)
    epsilon: float = option(
        0.05, "Smoothness of the assignment; smaller is sharper.", unit="temperature", above=0
    )
    sinkhorn_iterations: int = option(
        3, "Sinkhorn-Knopp iterations that balance the assignment.", unit="iterations", least=1
    )
    freeze_prototypes_epochs: float = option(
        1.0, "Freeze the prototypes for this long at the start.", unit="epochs", least=0
    )
    queue_length: int = option(
        0,
        "Length of the queue of earlier images, over all processes, that balances small batches; "
        "0 for none. 3840 is published for batches of 256.",
        unit="images", least=0,
    )  # fmt: skip
    queue_start_epoch: float = option(
        15.0, "Use the queue from this epoch on, once it is full.", unit="epochs", least=0
    )


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch prototypes"], epsilon: int | float = 0.05, iterations: int = 3
) -> Float[Tensor, "batch prototypes"]:
    """Assignments of rows to prototypes, every prototype used equally often.

    Rows of all processes are balanced together: ``1 + iterations`` collectives.
    Rows of the result sum to one.

    Source: arXiv:2006.09882, section 3 and appendix A.
    """
    scaled = full_precision(scores.detach()) / epsilon
    # A common shift changes nothing and keeps exp within range.
    peak = scaled.amax() if scaled.numel() else scaled.new_tensor(-torch.inf)
    if world_size() > 1:
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    assignments = (scaled - peak).exp_()
    smallest = torch.finfo(assignments.dtype).tiny
    for _ in range(iterations):
        used = assignments.sum(dim=0)
        if world_size() > 1:
            dist.all_reduce(used)
        assignments /= used.clamp(min=smallest)
        assignments /= assignments.sum(dim=1, keepdim=True).clamp(min=smallest)
    return assignments


class SwAVLoss(nn.Module):
    """Each crop predicts the assignments of the global crops.

    Args:
        num_crops: crops, global ones first.
        num_global_crops: crops whose assignments are predicted.
        temperature: of the prediction.
        epsilon: entropy of the assignments; lower is harder.
        sinkhorn_iterations: balancing rounds.

    Raises:
        ValueError: crop counts or temperatures out of range.

    Source: github.com/facebookresearch/swav, main_swav.py.
    """

    def __init__(
        self,
        num_crops: int,
        num_global_crops: int = 2,
        temperature: int | float = 0.1,
        epsilon: int | float = 0.05,
        sinkhorn_iterations: int = 3,
    ) -> None:
        super().__init__()
        if not 1 <= num_global_crops <= num_crops or num_crops < 2:
            raise ValueError(
                f"num_crops={num_crops}, num_global_crops={num_global_crops}: give at least "
                "2 crops and 1..num_crops global ones"
            )
        if temperature <= 0 or epsilon <= 0:
            raise ValueError(f"temperature={temperature} and epsilon={epsilon} must be above 0")
        self.num_crops = num_crops
        self.num_global_crops = num_global_crops
        self.temperature = temperature
        self.epsilon = epsilon
        self.sinkhorn_iterations = sinkhorn_iterations

    def forward(
        self,
        scores: Float[Tensor, "rows prototypes"] | Sequence[Float[Tensor, "_ prototypes"]],
        queued: Sequence[Float[Tensor, "_ prototypes"]] = (),
    ) -> Float[Tensor, ""]:
        """Loss of the scores of all crops, crop-major or one tensor per crop.

        ``queued`` are scores of images before, for each global crop: they take their part of the
        prototypes, so that fewer images than prototypes can be balanced, and are not learnt from.
        """
        crops = split_crops(scores, self.num_crops, "scores")[: self.num_global_crops]
        rows = [torch.cat(pair) for pair in zip(crops, queued, strict=True)] if queued else crops
        targets = [
            sinkhorn(row, self.epsilon, self.sinkhorn_iterations)[: len(crop)]
            for row, crop in zip(rows, crops, strict=True)
        ]
        return cross_view_entropy(scores, targets, self.temperature, self.num_crops)


class SwAVHead(nn.Module):
    """Projection to the unit sphere and scores against unit prototypes.

    Args:
        in_dim: width of the trunk.
        num_prototypes: 3000 for ImageNet's 1000 classes; fewer for small collections. More than
            ``out_dim``, or an embedding at right angles to all of them agrees with every view.
        hidden_dim: of the projection MLP.
        out_dim: width of the embedding.

    Attributes:
        keep_embeddings: hold what is scored, for a loss with a queue.
        embeddings: (rows, out_dim) of the last forward pass, detached.

    Source: github.com/facebookresearch/swav, src/resnet50.py.
    """

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int = 3000,
        hidden_dim: int = 2048,
        out_dim: int = 128,
    ) -> None:
        super().__init__()
        self.projection_head = mlp([in_dim, hidden_dim, out_dim], use_bn=True)
        self.prototypes = nn.Linear(out_dim, num_prototypes, bias=False)
        self.normalize_prototypes()
        self.keep_embeddings = False
        self.embeddings: Tensor | None = None

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Puts the prototypes back on the unit sphere; call before each step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def embed(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Embeddings on the unit sphere."""
        unit = F.normalize(full_precision(self.projection_head(x)), dim=1)
        self.embeddings = unit.detach() if self.keep_embeddings else None
        return unit

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch prototypes"]:
        """Cosine of each embedding with each prototype."""
        scores: Tensor = self.prototypes(self.embed(x).to(self.prototypes.weight.dtype))
        return scores


@register_method
class SwAV(Method[SwAVOptions]):
    """SwAV: each crop predicts the cluster assignment of the others (arXiv:2006.09882)."""

    name = "swav"
    Options = SwAVOptions
    local_crops = 6
    smallest_share = 0.14
    published = PublishedRun(100, 1024, 10, "as published, the batch of 4096 cut to 1024")

    def __init__(self, options: SwAVOptions, run: Run) -> None:
        super().__init__(options, run)
        crops = run.global_crops + run.local_crops
        self.swav = SwAVLoss(
            crops,
            run.global_crops,
            options.temperature,
            options.epsilon,
            options.sinkhorn_iterations,
        )
        if options.queue_length < 0:
            raise ValueError(
                f"queue_length={options.queue_length}: give the images to hold, or 0 for none"
            )
        self.options = options
        self.queue: SwAVQueue | None = None
        self._student_head: tuple[SwAVHead, ...] = ()  # no submodule: it is the model's
        self._epoch = 0.0
        self._embeddings: list[Tensor] = []  # of this step, for the queue

    @classmethod
    def views(cls, options: SwAVOptions, crops: Crops) -> AugmentConfig:
        """Crops of two sizes, all changed alike."""
        local = (crops.local_size, crops.local_count)
        return AugmentConfig.swav(crops.global_size, *local, crops.global_scale, crops.local_scale)

    @classmethod
    def head(cls, options: SwAVOptions, width: int, run: Run) -> nn.Module:
        """Projection and prototypes."""
        return SwAVHead(width, options.prototypes, options.hidden_dim, options.out_dim)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """Fewer prototypes for fewer images, and fewer directions than prototypes."""
        prototypes = choose.whole("num_prototypes", rule.num_prototypes, rule.why)
        if small:
            out = max(min(width // 4, 128, prototypes // 4), 1)
            choose.whole("out_dim", out, "a quarter of the network's width or of the prototypes")
            reason = "0.05 as published leaves the assignments of few images even"
            choose.pick("epsilon", 0.01, reason)

    def attach(self, student: nn.Module) -> None:
        """Have the head keep the embeddings that are to be queued."""
        if self.options.queue_length:
            head = student.get_submodule("heads.0")
            assert isinstance(head, SwAVHead)
            head.keep_embeddings = True
            self._student_head = (head,)
            width, globals_ = head.prototypes.in_features, self.swav.num_global_crops
            self.queue = SwAVQueue(self.options.queue_length, width, globals_)
            self.queue.to(head.prototypes.weight.device)

    def observe(self, inputs: Any, progress: Progress) -> None:
        """How far training is, by which the queue is used."""
        self._epoch = progress.epoch

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Swapped prediction of assignments; labels are ignored."""
        queued: Sequence[Tensor] = ()
        if self.queue is not None:
            head = self._student_head[0]
            assert head.embeddings is not None
            crops = split_crops(head.embeddings, self.swav.num_crops, "embeddings")
            self._embeddings = crops[: self.swav.num_global_crops]
            if self.queue.full() and self._epoch >= self.options.queue_start_epoch:
                queued = self._queued(self.queue, head)
        loss: Tensor = self.swav(output, queued)
        return loss

    @torch.no_grad()
    def _queued(self, queue: SwAVQueue, head: SwAVHead) -> list[Tensor]:
        """Scores of the queue by the prototypes of now, for each global crop."""
        prototypes: Any = head.prototypes.weight
        if hasattr(prototypes, "full_tensor"):  # a share of FSDP
            prototypes = prototypes.full_tensor()
        return list(F.linear(queue.share(), prototypes))

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Hold the prototypes for the first epochs."""
        if progress.epoch < self.options.freeze_prototypes_epochs:
            for name, parameter in student.named_parameters():
                if ".prototypes." in name:
                    parameter.grad = None

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Put the prototypes back on the unit sphere, and the embeddings into the queue."""
        head = student.get_submodule("heads.0")
        assert isinstance(head, SwAVHead)
        head.normalize_prototypes()
        # Only a step that is taken fills the queue: a skipped one may hold what is not finite.
        if self.queue is not None:
            self.queue.push(self._embeddings)
