"""Views that stay bytes on the device until a part of the batch needs them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LateView:
    """One view of all images of a batch, normalised where rows of it are asked for.

    In float32 the views of a batch take four times the memory of their bytes, which a step in parts
    would hold for the whole batch.

    Attributes:
        raw: (B, C, H, W) on the device, as the loader gave it.
        finish: what makes of it what the network sees; the same each time.
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
        """As it was loaded."""
        return self.raw.shape

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.raw.device
