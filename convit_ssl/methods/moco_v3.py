"""MoCo v3: symmetric contrast with a momentum encoder, no queue (arXiv:2104.02057)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.gather import full_precision, gather_constant_rows, process_rank


class MoCoV3Loss(nn.Module):
    """Predictions of one view against momentum projections of the other, both ways.

    Keys of all processes are negatives and carry no gradient. The mean over
    processes equals one process with all images; every process must hold the
    same number of them.

    Args:
        temperature: 0.2 for ViTs; the loss is scaled by twice of it, as published.

    Raises:
        ValueError: a temperature that is not above 0.

    Source: arXiv:2104.02057, algorithm 1; github.com/facebookresearch/moco-v3.
    """

    def __init__(self, temperature: int | float = 0.2) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.temperature = temperature

    def forward(
        self,
        query_first: Float[Tensor, "batch dim"],
        query_second: Float[Tensor, "batch dim"],
        key_first: Float[Tensor, "batch dim"],
        key_second: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, ""]:
        """Loss of two views: queries from the student's predictor, keys from the teacher."""
        return self._contrast(query_first, key_second) + self._contrast(query_second, key_first)

    def _contrast(self, query: Tensor, key: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            queries = F.normalize(full_precision(query), dim=-1)
            keys = gather_constant_rows(F.normalize(full_precision(key), dim=-1))
            logits = queries @ keys.T / self.temperature  # (B, BN)
        rows = torch.arange(query.shape[0], device=logits.device)
        own = rows + process_rank() * query.shape[0]
        return 2 * self.temperature * F.cross_entropy(logits, own)
