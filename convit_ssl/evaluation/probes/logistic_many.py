"""Loss and gradient of logistic regression with many classes, and variables that suit them.

With 1,000 classes the passes over the logits cost as much as the matrix products. Here a block of
images is small enough that its logits stay in a core's cache from the first product to the last,
and each thread takes blocks of its own. Products are in float32, sums over blocks in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.evaluation.probes.splits import ProbeData, Rows
from convit_ssl.evaluation.products import fastest
from convit_ssl.machine import threads_of_one_core

BLOCK = 256  # images
IN_SUM = 32  # blocks whose gradients are added up in float32


class ManyClasses:
    """Sum of cross-entropies over images, and its gradient.

    Args:
        data: standardised features; all its columns are read.
        rows: of train.
        targets: (N,) classes of all images of `data`.
        pool: threads that take blocks; None to use this one.
    """

    def __init__(
        self, data: ProbeData, rows: Rows, targets: Rows, pool: ThreadPoolExecutor | None
    ) -> None:
        self.data, self.rows, self.targets, self.pool = data, rows, targets, pool
        self.columns = tuple(data.widths())

    def blocks(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Features with a column of ones, for the bias, and classes."""
        for chunk, batch in self.data.batches(rows, BLOCK):
            ones = torch.ones(len(chunk), 1, device=self.data.device)
            features = torch.cat([*(batch[name] for name in self.columns), ones], dim=1)
            yield features, torch.from_numpy(self.targets[chunk]).to(features.device)

    def __call__(
        self, parameters: Float[Tensor, "dim classes"]
    ) -> tuple[Tensor, Float[Tensor, "dim classes"]]:
        """At weights and, in the last row, the bias; both answers in float64."""
        weight = parameters.float().t().contiguous()
        size = BLOCK * IN_SUM
        parts = [self.rows[first : first + size] for first in range(0, len(self.rows), size)]

        def part(rows: Rows) -> tuple[Tensor, Tensor]:
            return self._part(rows, weight)

        loss, gradient = torch.zeros((), dtype=torch.float64), torch.zeros_like(parameters)
        for entropy, found in self.pool.map(part, parts) if self.pool else map(part, parts):
            loss, gradient = loss + entropy.cpu(), gradient + found.t()
        return loss, gradient

    def _part(self, rows: Rows, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Of some blocks, at weights (classes, dim); the gradient likewise."""
        loss = torch.zeros((), dtype=torch.float64, device=weight.device)
        gradient = torch.zeros_like(weight)
        for features, truth in self.blocks(rows):
            forward = fastest(len(weight), len(features), features.shape[1], weight.device)
            each = torch.arange(len(truth), device=truth.device)
            found = forward(weight, features).log_softmax(dim=0)
            loss -= found[truth, each].double().sum()
            found.exp_()
            found[truth, each] -= 1.0
            turned = features.t().contiguous()
            back = fastest(len(weight), len(turned), turned.shape[1], weight.device)
            gradient += back(found, turned)
        return loss, gradient


@contextlib.contextmanager
def pool_for(device: torch.device) -> Iterator[ThreadPoolExecutor | None]:
    """A thread for each core that PyTorch may use; None for one core or another device."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield None
        return
    with threads_of_one_core(threads) as pool:
        yield pool


def whitening(
    data: ProbeData, rows: Rows, num_classes: int, penalty: float
) -> Float[Tensor, "dim dim"]:
    """A matrix A for which the loss is about as curved in all directions of U, with W = A U.

    Where all classes are equally likely, the mean cross-entropy has the curvature S / classes in
    the features, with S their second moments; `penalty` adds to it. A is the inverse root of
    both. L-BFGS needs about half as many evaluations in U.

    Args:
        data: features.
        rows: of train.
        num_classes: outputs.
        penalty: curvature of the penalty for each image.

    Returns:
        Symmetric, float64, with a last row and column for the bias.
    """
    width = sum(data.widths().values())
    moments = torch.zeros(width, width, dtype=torch.float64, device=data.device)
    for _, batch in data.batches(rows):
        features = torch.cat(list(batch.values()), dim=1)
        moments += (features.t() @ features).double()
    values, vectors = torch.linalg.eigh(moments / len(rows))
    curvature = values.clamp_min(0.0) / num_classes + penalty
    root = vectors * curvature.clamp_min(1e-8 * float(curvature.max())).rsqrt() @ vectors.t()
    whole = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=data.device)
    whole[:-1, :-1] = root
    whole[-1, -1] = num_classes**0.5
    return whole
