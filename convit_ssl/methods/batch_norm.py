"""Batch normalisation of projection heads: over all processes, and view by view."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convit_ssl.methods.cross_view import split_crops
from convit_ssl.methods.gather import full_precision, sum_over_processes, world_size


class HeadBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` with the statistics of all processes, on the CPU too.

    PyTorch's ``SyncBatchNorm`` only works on GPUs, and ``convert_sync_batchnorm`` replaces this
    layer with it there. On the CPU this layer adds up the statistics itself, so that N processes
    with batch B normalise exactly as one process with batch N x B. With one process, or in eval
    mode, it is ``nn.BatchNorm1d``. State-dict keys are the same.

    A forward pass in training mode is a collective call. Processes may hold different numbers
    of rows.
    """

    def forward(self, input: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Normalise each channel.

        Raises:
            ValueError: all processes together hold a single row, which has no variance.
        """
        if not self.training or world_size() == 1 or input.device.type != "cpu":
            return super().forward(input)
        wide = full_precision(input)
        rows = wide.new_full((1,), float(wide.shape[0]))
        sums = sum_over_processes(torch.cat((wide.sum(0), rows)))
        total = sums[-1].detach()
        if total < 2:
            raise ValueError(f"batch normalisation needs more than {int(total)} row in training")
        mean = sums[:-1] / total
        centred = wide - mean
        variance = sum_over_processes(centred.square().sum(0)) / total
        self._follow(mean.detach(), variance.detach() * (total / (total - 1)))
        normed = centred * (variance + self.eps).rsqrt()
        if self.affine:
            normed = normed * self.weight + self.bias
        return normed.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as ``nn.BatchNorm1d`` does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


def apply_by_view(
    layers: nn.Sequential, x: Float[Tensor, "rows in_dim"], views: int
) -> Float[Tensor, "rows out_dim"]:
    """``layers`` on the rows of several views at once, each view normalised separately.

    Equals one call per view, running statistics included, but each linear layer reads its
    weights once.

    Args:
        layers: an MLP with batch normalisation.
        x: view-major: all rows of the first view, then all rows of the second.
        views: how many.

    Raises:
        ValueError: the rows cannot be divided evenly over the views.
    """
    if views == 1:
        whole: Tensor = layers(x)
        return whole
    for layer in layers:
        if isinstance(layer, _BatchNorm) and layer.training:
            x = torch.cat([layer(view) for view in split_crops(x, views, "views")])
        else:
            x = layer(x)
    return x


class ViewWise(nn.Sequential):
    """An MLP that normalises the rows of each view by themselves.

    Args:
        layers: the MLP, with batch normalisation.
        views: in the features of a forward pass, view-major.
    """

    def __init__(self, layers: nn.Sequential, views: int) -> None:
        super().__init__(*layers)
        self.views = views

    def forward(self, x: Float[Tensor, "rows in_dim"]) -> Float[Tensor, "rows out_dim"]:
        """Embeddings of all views."""
        if self.views > 1:
            return apply_by_view(self, x, self.views)
        whole: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return whole
