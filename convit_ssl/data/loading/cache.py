"""Decoded small images, kept in memory that all loader workers share.

Decoding a 64-pixel PNG takes as long as augmenting it. Each image of a small collection
is therefore decoded once per run and process group, by the first worker that meets it:
8-bit RGB, or the scaled channels of images of native depth.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_BYTES = 1 << 30
_SHAPE_BYTES = 16  # of each image: height, width, channels, and a place that keeps them aligned


def _anonymous_file(size: int) -> int:
    """A descriptor of ``size`` bytes that no folder knows; pages are taken when written."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("convit_ssl_pixels")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


class PixelCache:
    """Slots of equal size for the (H, W, C) arrays of ``num_images`` images.

    A slot takes memory only as far as it is written, so it may be as large as the largest image.
    Workers made by fork, forkserver or spawn share it; any other copy starts empty.

    Args:
        num_images: number of slots.
        slot_bytes: size of the largest image that is kept.
        dtype: of all images: uint8, or float32 of native depth.
        max_bytes: of all images that are kept, about; None for as many as there are slots.
    """

    def __init__(
        self, num_images: int, slot_bytes: int, dtype: str = "uint8", max_bytes: int | None = None
    ) -> None:
        self.num_images = num_images
        self.dtype = dtype
        self.max_bytes = max_bytes
        size = np.dtype(dtype).itemsize
        self.slot_bytes = -(-slot_bytes // size) * size
        self._open(_anonymous_file(self._size()))

    def _size(self) -> int:
        """Slots, shapes, and one place for what is used."""
        return self.num_images * (self.slot_bytes + _SHAPE_BYTES) + _SHAPE_BYTES

    def _open(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._owner = os.getpid()
        memory = mmap.mmap(descriptor, self._size())
        split = (self.num_images + 1) * _SHAPE_BYTES
        self._used: npt.NDArray[np.int64] = np.frombuffer(memory, np.int64, 1)
        shapes = np.frombuffer(memory, np.int32, split // 4)[_SHAPE_BYTES // 4 :]
        self._shapes: npt.NDArray[np.int32] = shapes.reshape(-1, _SHAPE_BYTES // 4)
        values: Any = np.frombuffer(memory, self.dtype, offset=split)
        self._pixels: Any = values.reshape(self.num_images, -1)

    def get(self, position: int) -> Any:
        """The image, as a view that is not to be written to; None where it is not kept."""
        height, width, channels, _ = self._shapes[position].tolist()
        if height == 0:
            return None
        kept = self._pixels[position, : height * width * channels]
        return kept.reshape(height, width, channels)

    def put(self, position: int, pixels: Any) -> None:
        """Keep an image, where it fits its slot and there is memory left."""
        if pixels.nbytes > self.slot_bytes or pixels.dtype != self.dtype:
            return
        if self.max_bytes is not None:
            taken = _pages(pixels.nbytes, self.slot_bytes)
            if int(self._used[0]) + taken > self.max_bytes:
                return
            # Workers may count at once and lose one another's: a few images too many.
            self._used[0] += taken
        self._pixels[position, : pixels.size] = pixels.reshape(-1)
        # The height last: a reader takes an image with a height as complete.
        self._shapes[position, 1:3] = pixels.shape[1:]
        self._shapes[position, 0] = pixels.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        shared = DupFd(self._descriptor) if get_spawning_popen() is not None else None
        return {
            "num_images": self.num_images,
            "slot_bytes": self.slot_bytes,
            "dtype": self.dtype,
            "max_bytes": self.max_bytes,
            "shared": shared,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_images = state["num_images"]
        self.slot_bytes = state["slot_bytes"]
        self.dtype = state["dtype"]
        self.max_bytes = state["max_bytes"]
        shared = state["shared"]
        self._open(_anonymous_file(self._size()) if shared is None else shared.detach())

    def __del__(self) -> None:
        # After a fork both processes hold the descriptor; each closes its own.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def make_cache(
    sizes: Sequence[tuple[int, int]],
    num_images: int,
    max_bytes: int = DEFAULT_BYTES,
    channels: int | None = None,
) -> PixelCache | None:
    """A cache for images whose sample has these (height, width), where they all should fit.

    Images that are larger than all of the sample, or come after ``max_bytes``, are not kept.
    Several processes on one machine each make their own, and share ``max_bytes``.

    Args:
        sizes: of some of the images.
        num_images: of the collection.
        max_bytes: for all processes of this machine.
        channels: of images of native depth, which are float32; None for 8-bit RGB.
    """
    pixel, dtype = (3, "uint8") if channels is None else (4 * channels, "float32")
    each = [height * width * pixel for height, width in sizes]
    slot = max(each)
    expected = sum(_pages(size, slot) for size in each) / len(each) * num_images
    own = max_bytes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return PixelCache(num_images, slot, dtype, own) if expected <= own else None


def _pages(size: int, slot: int) -> int:
    """Memory that an image takes: one that leaves room in its slot ends within a page."""
    return size if size == slot else size + mmap.PAGESIZE
