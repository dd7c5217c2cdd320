"""Our images in the form that VISSL's task asks of a data set."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from convit_ssl.data import ImageFiles


class VisslImages(Dataset[Any]):
    """`ImageFiles` with the questions VISSL asks a data set.

    Args:
        images: the images with their transform.
        global_batch: images per step over all processes.
    """

    def __init__(self, images: ImageFiles, global_batch: int) -> None:
        self.images = images
        self.global_batch = global_batch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        return self.images[index]

    def get_global_batchsize(self) -> int:
        """Images per step over all processes."""
        return self.global_batch

    def num_samples(self) -> int:
        """Images."""
        return len(self.images)

    def rebuild_dataloader(self) -> bool:
        """Never: loader workers are kept between epochs."""
        return False

    def set_classy_state(self, state: Any) -> None:
        """Nothing to restore: what is drawn is a function of seed and epoch."""

    def get_classy_state(self) -> None:
        """Nothing to keep."""
