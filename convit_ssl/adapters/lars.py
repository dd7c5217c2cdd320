"""LARS as published with contrastive methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Lars


class PublishedLars(Lars):
    """timm's LARS that adapts the rate of every matrix, with or without weight decay.

    The step of a matrix is scaled by ``0.001 |w| / |g + decay w|``. Vectors (biases, norms, gates)
    keep the plain rate and are not decayed. By default timm adapts only parameters with weight
    decay, including vectors; its denominator is ``|g| + decay |w|``, as in arXiv:1708.03888.

    Args:
        params: parameter groups, as for any PyTorch optimiser.
        options: of `timm.optim.Lars`.

    Source: arXiv:2002.05709, section B.6 and its released code (lars_optimizer.py), and
    facebookresearch/moco-v3, moco/optimizer.py, class LARS. Each method names its own source.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        # timm's 1e-8 in the denominator is in no released code; it leaves norms of 0 alone anyway.
        super().__init__(params, **{"eps": 0.0, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. Weight decay is added to the gradients in place."""
        groups = self.param_groups
        self.param_groups = [part for group in groups for part in _parts(group)]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups


def _parts(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The matrices of a group, with weight decay applied, and its vectors."""
    learned = [p for p in group["params"] if p.grad is not None]
    matrices = [p for p in learned if p.dim() > 1]
    vectors = [p for p in learned if p.dim() <= 1]
    if matrices and group["weight_decay"]:
        gradients = [p.grad for p in matrices]
        torch._foreach_add_(gradients, matrices, alpha=group["weight_decay"])
    return [
        {**group, "params": matrices, "weight_decay": 0.0, "always_adapt": True},
        {**group, "params": vectors, "weight_decay": 0.0, "always_adapt": False},
    ]
