"""Several networks that see the same images, each of which is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Views:
    """Several views of an image.

    Args:
        transforms: none of them random, and all for the same kind of image.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> tuple[Any, ...]:
        """One view by each transform."""
        return tuple(transform(image) for transform in self.transforms)


class SideBySide(nn.Module):
    """Features of several networks in one row an image.

    Args:
        networks: give (B, D), or a list that begins with it.
        views: for each network, the number of the view that it sees.

    Attributes:
        widths: D of each network; empty before the first batch.
    """

    def __init__(self, networks: Sequence[nn.Module], views: Sequence[int]) -> None:
        super().__init__()
        # Not registered: `train` and `to` are not for us to pass on.
        self._networks = tuple(zip(networks, views, strict=True))
        self.widths: list[int] = []

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """The features (B, sum of all D) in float32 of the views of a batch."""
        found = [network(batch[view]) for network, view in self._networks]
        found = [(one[0] if isinstance(one, list) else one).float() for one in found]
        self.widths = [int(one.shape[1]) for one in found]
        return torch.cat(found, dim=1)
