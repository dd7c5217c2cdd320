"""Barlow Twins: the views' cross-correlation becomes the identity (arXiv:2103.03230)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.gather import full_precision, sum_over_processes


class BarlowTwinsLoss(nn.Module):
    """Squared distance of the cross-correlation matrix from the identity.

    Means, variances and the matrix itself are those of all images of all
    processes (which may differ in number), so the value is the same on each and
    averaged gradients equal those of one process with all images.

    Args:
        redundancy_weight: lambda, of the entries off the diagonal.
        scale: of the whole loss (0.024 for LARS as published; 1 for AdamW).

    Source: arXiv:2103.03230, equation 1 and algorithm 1.
    """

    def __init__(self, redundancy_weight: int | float = 0.0051, scale: int | float = 1.0) -> None:
        super().__init__()
        self.redundancy_weight = redundancy_weight
        self.scale = scale

    def forward(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, ""]:
        """Loss of two views, row r of each being image r."""
        with torch.autocast(first.device.type, enabled=False):
            correlation = _cross_correlation(full_precision(first), full_precision(second))
        diagonal = correlation.diagonal()
        invariance = (diagonal - 1).square().sum()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        return self.scale * (invariance + self.redundancy_weight * redundancy)


def _cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """(dim, dim), from two collectives: the means, then all second moments."""
    dim = first.shape[1]
    count = first.new_full((1,), float(first.shape[0]))
    sums = sum_over_processes(torch.cat((first.sum(0), second.sum(0), count)))
    total = sums[-1]
    first = first - sums[:dim] / total
    second = second - sums[dim:-1] / total
    moments = torch.stack((first.square().sum(0), second.square().sum(0)))
    packed = sum_over_processes(torch.cat((first.T @ second, moments))) / total
    deviations = (packed[dim:] + 1e-5).sqrt()  # epsilon of batch normalisation
    return packed[:dim] / deviations[0].unsqueeze(1) / deviations[1]
