"""SwAV: swapped prediction of balanced cluster assignments (arXiv:2006.09882)."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.cross_view import cross_view_entropy, split_crops
from convit_ssl.methods.gather import full_precision, world_size


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

    Source: github.com/facebookresearch/swav, main_swav.py (without its queue).
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
        self, scores: Float[Tensor, "rows prototypes"] | Sequence[Float[Tensor, "_ prototypes"]]
    ) -> Float[Tensor, ""]:
        """Loss of the scores of all crops, crop-major or one tensor per crop."""
        crops = split_crops(scores, self.num_crops, "scores")
        targets = [
            sinkhorn(crop, self.epsilon, self.sinkhorn_iterations)
            for crop in crops[: self.num_global_crops]
        ]
        return cross_view_entropy(scores, targets, self.temperature, self.num_crops)
