"""Our images behind the data set interface of VISSL's task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset


class VisslImages(Dataset[Any]):
    """A data set with the methods that VISSL calls.

    Args:
        images: gives (image or views, target, index).
        global_batch: images per step over all processes.
        set_epoch: called at the start of an epoch, so that augmentation is redrawn.
    """

    def __init__(
        self,
        images: Dataset[Any],
        global_batch: int,
        set_epoch: Callable[[int], None] | None = None,
    ) -> None:
        self.images = images
        self.global_batch = global_batch
        self._set_epoch = set_epoch

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        item: tuple[Any, int, int] = self.images[index]
        return item

    def set_epoch(self, epoch: int) -> None:
        """Pass on the number of the epoch."""
        if self._set_epoch is not None:
            self._set_epoch(epoch)

    def get_global_batchsize(self) -> int:
        """Images per step over all processes."""
        return self.global_batch

    def num_samples(self) -> int:
        """Number of images."""
        return len(self)

    def rebuild_dataloader(self) -> bool:
        """Always False: loader workers are kept between epochs."""
        return False

    def set_classy_state(self, state: Any) -> None:
        """Nothing to restore: random draws depend on seed and epoch only."""

    def get_classy_state(self) -> None:
        """Nothing to save."""


class Numbered(Dataset[Any]):
    """A data set whose index is the position in itself, not in the data set it was made from."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        image, target, _ = self.images[index]
        return image, target, index
