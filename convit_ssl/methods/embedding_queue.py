"""Embeddings of the images before, kept over steps and processes."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.methods.gather import (
    full_precision,
    gather_constant_rows,
    process_rank,
    world_size,
)


class SwAVQueue(nn.Module):
    """The embeddings of the images before, the latest first, once there are enough of them.

    Every process holds the embeddings of all, so that any number of processes goes on from a
    checkpoint, and gives its own share of them.

    Args:
        length: images, of all processes together.
        dim: width of the embedding.
        num_global_crops: crops of each image.

    Source: arXiv:2006.09882, section 4.1 ("small batches").
    """

    embeddings: Float[Tensor, "crops length dim"]
    seen: Tensor

    def __init__(self, length: int, dim: int, num_global_crops: int = 2) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length={length} must be at least 1")
        self.register_buffer("embeddings", torch.zeros(num_global_crops, length, dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._seen: int | None = None  # of `seen`, which on a GPU would be waited for

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._seen = None

    def full(self) -> bool:
        """Whether as many images were seen as it holds."""
        return self.count() == self.embeddings.shape[1]

    def count(self) -> int:
        """How many images it holds."""
        if self._seen is None:
            self._seen = int(self.seen)
        return min(self._seen, self.embeddings.shape[1])

    def share(self) -> Float[Tensor, "crops rows dim"]:
        """This process's part."""
        return self.embeddings[:, process_rank() :: world_size()]

    @torch.no_grad()
    def push(self, crops: Sequence[Float[Tensor, "batch dim"]]) -> None:
        """Takes the embeddings of each global crop, from all processes in one collective."""
        images = full_precision(torch.stack(list(crops), dim=1)).to(self.embeddings.dtype)
        rows = gather_constant_rows(images).transpose(0, 1)
        kept = torch.cat((rows, self.embeddings), dim=1)
        self.embeddings.copy_(kept[:, : self.embeddings.shape[1]])
        self.seen += rows.shape[1]
        if self._seen is not None:
            self._seen += rows.shape[1]
