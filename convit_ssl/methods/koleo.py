"""KoLeo: features of different images are kept apart (arXiv:1806.03198)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.gather import full_precision, gather_rows, process_rank

# Added to squared distances: copies of one image in a batch give a finite value, and no gradient.
_EPSILON = 1e-8


class KoLeoLoss(nn.Module):
    """Minus the mean logarithm of the distance to the nearest other image of the batch.

    Features are taken at unit length, so the least value is reached where they cover the sphere
    evenly. DINOv2 adds it to DINO's loss with a weight of 0.1, once for each global crop.

    The neighbours are those of all processes: the mean of the loss over processes, and the
    gradients averaged over them, equal those of one process with all images. Every process must
    hold the same number of images.

    Source: Sablayrolles et al., arXiv:1806.03198, section 3.2; DINOv2, arXiv:2304.07193,
    section 4.
    """

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Loss of one crop of each image; features of any length. One image alone gives 0."""
        with torch.autocast(features.device.type, enabled=False):
            local = F.normalize(full_precision(features), dim=-1)
            everyone = gather_rows(local)  # (B N, D)
            if everyone.shape[0] < 2:
                return local.sum() * 0.0
            with torch.no_grad():
                similarity = local @ everyone.T  # (B, B N)
                first = process_rank() * local.shape[0]
                similarity.diagonal(first).fill_(-2.0)
                nearest = similarity.argmax(dim=1)
            squared = (local - everyone[nearest]).square().sum(dim=-1)
            return -0.5 * (squared + _EPSILON).log().mean()
