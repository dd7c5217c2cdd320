"""Decoded small images, kept in memory that all loader workers share.

Decoding a 64-pixel PNG takes as long as augmenting it. Each image of a small collection
is therefore decoded once per run and process group, by the first worker that meets it.
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

from convit_ssl.data.pixels import Pixels

DEFAULT_BYTES = 1 << 30


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
    """Slots of equal size for the (H, W, 3) uint8 arrays of ``num_images`` images.

    Workers made by fork, forkserver or spawn share it; any other copy starts empty.

    Args:
        num_images: number of slots.
        slot_bytes: size of the largest image that is kept.
    """

    def __init__(self, num_images: int, slot_bytes: int) -> None:
        self.num_images = num_images
        self.slot_bytes = slot_bytes
        self._open(_anonymous_file(num_images * (slot_bytes + 8)))

    def _open(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._owner = os.getpid()
        size = self.num_images * (self.slot_bytes + 8)
        memory = mmap.mmap(descriptor, size)
        split = self.num_images * 8
        shapes = np.frombuffer(memory, np.int32, self.num_images * 2)
        self._shapes: npt.NDArray[np.int32] = shapes.reshape(-1, 2)
        self._pixels: Pixels = np.frombuffer(memory, np.uint8, offset=split).reshape(
            self.num_images, self.slot_bytes
        )

    def get(self, position: int) -> Pixels | None:
        """The image, as a view that is not to be written to; None where it is not kept."""
        height, width = self._shapes[position].tolist()
        if height == 0:
            return None
        return self._pixels[position, : height * width * 3].reshape(height, width, 3)

    def put(self, position: int, pixels: Pixels) -> None:
        """Keep an image, where it fits its slot."""
        if pixels.size > self.slot_bytes:
            return
        self._pixels[position, : pixels.size] = pixels.reshape(-1)
        # The width first: a reader takes an image with a height as complete.
        self._shapes[position, 1] = pixels.shape[1]
        self._shapes[position, 0] = pixels.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        shared = DupFd(self._descriptor) if get_spawning_popen() is not None else None
        return {
            "num_images": self.num_images,
            "slot_bytes": self.slot_bytes,
            "shared": shared,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_images = state["num_images"]
        self.slot_bytes = state["slot_bytes"]
        size = self.num_images * (self.slot_bytes + 8)
        self._open(_anonymous_file(size) if state["shared"] is None else state["shared"].detach())

    def __del__(self) -> None:
        # After a fork both processes hold the descriptor; each closes its own.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def make_cache(
    sizes: Sequence[tuple[int, int]], num_images: int, max_bytes: int = DEFAULT_BYTES
) -> PixelCache | None:
    """A cache for images whose sample has these (height, width), where they all fit.

    Several processes on one machine each make their own, and share ``max_bytes``.
    """
    slot = max(height * width * 3 for height, width in sizes)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if slot * num_images * processes > max_bytes:
        return None
    return PixelCache(num_images, slot)
