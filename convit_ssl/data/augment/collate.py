"""Samples to batches, for one crop, several crops, or canvases of the device pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def fast_collate(samples: Sequence[tuple[Any, int, int]]) -> tuple[Any, Tensor, Tensor]:
    """``(crops, targets, indices)`` of samples ``(crop or crops, target, index)``.

    A list or tuple of crops becomes a list of batches, one per crop. uint8 crops in channels-last
    memory stay in it: (B, 3, H, W) over (B, H, W, 3), copied once, and into shared memory
    where this is a loader worker. Grey ones become (B, 1, H, W), of which normalising
    makes three channels.
    """
    images, targets, indices = zip(*samples, strict=True)
    first = images[0]
    batch: Any
    if hasattr(first, "_fields"):  # a named tuple
        batch = type(first)(*(_stack(parts) for parts in zip(*images, strict=True)))
    elif isinstance(first, list | tuple):
        batch = [_stack(crops) for crops in zip(*images, strict=True)]
    else:
        batch = _stack(images)
    return batch, torch.tensor(targets), torch.tensor(indices)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if first.dim() == 3 and first.stride(0) == 0 and first.dtype == torch.uint8:
        # A grey image, shown as three channels: one is enough to copy, and a batch that shows
        # its memory three times could not be pinned for a GPU.
        return _stack([tensor[0] for tensor in tensors]).unsqueeze(1)
    if first.dim() == 3 and first.stride(0) == 1 and not first.is_contiguous():
        return _stack([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)
    shape = (len(tensors), *first.shape)
    if get_worker_info() is None:
        out = torch.empty(shape, dtype=first.dtype)
    else:
        size = first.numel() * first.element_size() * len(tensors)
        storage = torch.UntypedStorage._new_shared(size)
        out = torch.empty(0, dtype=first.dtype).set_(storage, 0, shape, _strides(shape))
    return torch.stack(list(tensors), out=out)
