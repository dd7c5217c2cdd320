"""Views that stay bytes on the device until a part of the batch needs them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LateView:
    """One view of all images of a batch; rows are normalised when they are indexed.

    In float32, views take four times the memory of their bytes, and a step in parts would hold them
    for the whole batch.

    Attributes:
        raw: (B, C, H, W) on the device, as loaded.
        finish: makes the network's input from it; deterministic.
    """

    raw: Tensor
    finish: nn.Module

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, rows: slice) -> Tensor:
        finished: Tensor = self.finish(self.raw[rows])
        return finished

    @property
    def shape(self) -> torch.Size:
        """Shape of the loaded batch."""
        return self.raw.shape

    @property
    def device(self) -> torch.device:
        """Device of the loaded batch."""
        return self.raw.device
