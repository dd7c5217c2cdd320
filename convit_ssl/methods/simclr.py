"""SimCLR: the normalised, temperature-scaled cross-entropy (arXiv:2002.05709)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.gather import full_precision, gather_rows, process_rank


class NTXentLoss(nn.Module):
    """Each view finds its partner among the views of all images of all processes.

    The mean of the loss over processes, and the gradients averaged over them,
    equal those of one process with all images. Every process must hold the same
    number of images.

    Args:
        temperature: divides the cosine similarities (SimCLR 0.1; MoCo v3's ViT
            protocol 0.2).

    Raises:
        ValueError: a temperature that is not above 0.

    Source: arXiv:2002.05709, equation 1.
    """

    def __init__(self, temperature: int | float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.temperature = temperature

    def forward(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, ""]:
        """Loss of two views, row r of each being image r; embeddings of any length."""
        batch = first.shape[0]
        with torch.autocast(first.device.type, enabled=False):
            local = F.normalize(full_precision(torch.cat((first, second))), dim=-1)
            everyone = gather_rows(local)
            logits = local @ everyone.T / self.temperature  # (2B, 2BN)
        start = process_rank() * 2 * batch
        own = torch.arange(start, start + 2 * batch, device=logits.device)
        logits = logits.scatter(1, own.unsqueeze(1), float("-inf"))
        partner = own.roll(batch)
        return F.cross_entropy(logits, partner)
