"""SwAV: swapped prediction of balanced cluster assignments (arXiv:2006.09882)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.cross_view import cross_view_entropy, split_crops
from convit_ssl.methods.gather import (
    full_precision,
    gather_constant_rows,
    process_rank,
    world_size,
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


class SwAVQueue(nn.Module):
    """The embeddings of the images before, the latest first, once there are enough of them.

    Every process holds the embeddings of all, so that any number of processes goes on from a
    checkpoint, and gives its own share of them.

    Args:
        length: images, of all processes together.
        dim: width of the embedding.
        num_global_crops: crops of each image.

    Source: arXiv:2006.09882, section 4.1 ("small batches").
    """

    embeddings: Float[Tensor, "crops length dim"]
    seen: Tensor

    def __init__(self, length: int, dim: int, num_global_crops: int = 2) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length={length} must be at least 1")
        self.register_buffer("embeddings", torch.zeros(num_global_crops, length, dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._seen: int | None = None  # of `seen`, which on a GPU would be waited for

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._seen = None

    def full(self) -> bool:
        """Whether as many images were seen as it holds."""
        if self._seen is None:
            self._seen = int(self.seen)
        return self._seen >= self.embeddings.shape[1]

    def share(self) -> Float[Tensor, "crops rows dim"]:
        """This process's part."""
        return self.embeddings[:, process_rank() :: world_size()]

    @torch.no_grad()
    def push(self, crops: Sequence[Float[Tensor, "batch dim"]]) -> None:
        """Takes the embeddings of each global crop, from all processes in one collective."""
        images = full_precision(torch.stack(list(crops), dim=1)).to(self.embeddings.dtype)
        rows = gather_constant_rows(images).transpose(0, 1)
        kept = torch.cat((rows, self.embeddings), dim=1)
        self.embeddings.copy_(kept[:, : self.embeddings.shape[1]])
        self.seen += rows.shape[1]
        if self._seen is not None:
            self._seen += rows.shape[1]
