"""The order of images in an epoch: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from convit_ssl.data.augment.randomness import RepeatedIndex, sample_seed
from convit_ssl.errors import UserError

TAILS = ("pad", "drop", "uneven")
WINDOW = 16  # shards that are read from at a time


class EpochSampler(Sampler[int]):
    """Each image once per epoch, over all processes; can start anywhere in the epoch.

    Positions of the epoch's permutation go round the processes in turn, so after any
    number of equal steps a *first part* of the permutation has been seen. A run is
    therefore resumed by (epoch, position) alone, by any number of processes.

    Args:
        num_images: size of the data set.
        shuffle: False keeps the order of the data set.
        seed: of the permutations.
        rank, world_size: this process among all.
        start_index: images of this epoch that all processes together have seen already.
        tail: what becomes of images that do not fill a last round: ``pad`` gives every
            process as many by taking some of the first ones again, ``drop`` leaves them
            out, ``uneven`` gives some processes one more (evaluation).
        groups: numbers of images that lie together, as in the shards of a collection. Then whole
            groups are shuffled, and the images of `WINDOW` of them among each other, so that
            only so many shards are read from at a time. Empty: each image by itself.
        repeats: with 3, every image comes three times in a row, to different processes
            where there are several, and the epoch still has ``num_images`` samples
            (repeated augmentation; Hoffer et al. 2020, arXiv:1901.09335, as in DeiT).

    Raises:
        UserError: nonsensical numbers, or more processes than images.
    """

    def __init__(
        self,
        num_images: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_index: int = 0,
        tail: str = "pad",
        repeats: int = 1,
        groups: Sequence[int] = (),
    ) -> None:
        if not 0 <= rank < world_size:
            raise UserError(f"process {rank} of {world_size}: they are counted from 0")
        if num_images < world_size:
            raise UserError(f"{world_size} processes for {num_images} images: use fewer processes")
        if tail not in TAILS:
            raise UserError(f"tail is {tail!r}; choose from {', '.join(TAILS)}")
        if repeats < 1:
            raise UserError(f"repeats is {repeats}; it must be at least 1")
        if groups and sum(groups) != num_images:
            raise UserError(f"the groups contain {sum(groups)} images, but there are {num_images}")
        self.num_images = num_images
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.tail = tail
        self.repeats = repeats
        self.groups = list(groups)
        self.epoch = 0
        self.start_index = 0
        self.set_epoch(0, start_index)

    def set_epoch(self, epoch: int, start_index: int = 0) -> None:
        """Choose the epoch, and how many of its samples have been seen by all processes."""
        if not 0 <= start_index <= self.num_images:
            raise UserError(f"start_index is {start_index}; an epoch has {self.num_images} images")
        self.epoch = epoch
        self.start_index = start_index

    def __len__(self) -> int:
        left = self.num_images - self.start_index
        if self.tail == "drop":
            return left // self.world_size
        if self.tail == "pad":
            return -(-left // self.world_size)
        return (left - self.rank + self.world_size - 1) // self.world_size

    def __iter__(self) -> Iterator[int]:
        order = self.permutation()
        for turn in range(len(self)):
            position = self.start_index + self.rank + turn * self.world_size
            image, repeat = divmod(position % self.num_images, self.repeats)
            yield order[image] if self.repeats == 1 else RepeatedIndex(order[image], repeat)

    def permutation(self) -> list[int]:
        """The order of this epoch, the same in every process."""
        if not self.shuffle:
            return list(range(self.num_images))
        generator = torch.Generator().manual_seed(sample_seed(self.seed, self.epoch, 0x0E9C))
        if len(self.groups) > WINDOW:
            return self._by_groups(generator)
        order: list[int] = torch.randperm(self.num_images, generator=generator).tolist()
        return order

    def _by_groups(self, generator: torch.Generator) -> list[int]:
        starts = torch.tensor([0, *self.groups]).cumsum(0).tolist()
        shuffled = torch.randperm(len(self.groups), generator=generator).tolist()
        order: list[int] = []
        for first in range(0, len(shuffled), WINDOW):
            window = shuffled[first : first + WINDOW]
            images = torch.cat([torch.arange(starts[g], starts[g + 1]) for g in window])
            order += images[torch.randperm(len(images), generator=generator)].tolist()
        return order
