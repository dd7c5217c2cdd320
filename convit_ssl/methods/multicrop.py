"""Crops of several sizes through one trunk."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def group_by_size(crops: Sequence[Float[Tensor, "_ channels _ _"]]) -> list[list[int]]:
    """Indices of the crops of each height and width, sizes in order of appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, crop in enumerate(crops):
        groups.setdefault(tuple(crop.shape[-2:]), []).append(index)
    return list(groups.values())


def forward_crops(
    trunk: Callable[[Tensor], Tensor], crops: Sequence[Float[Tensor, "_ channels _ _"]]
) -> list[Float[Tensor, "..."]]:
    """Features of each crop, in the order given, with one trunk call per size.

    Args:
        trunk: maps ``(B, channels, H, W)`` to a tensor whose first axis is B.
        crops: one batch of images each; batches may differ in number.
    """
    features: list[Tensor | None] = [None] * len(crops)
    for indices in group_by_size(crops):
        sizes = [crops[index].shape[0] for index in indices]
        batch = torch.cat([crops[index] for index in indices]) if len(indices) > 1 else None
        output = trunk(crops[indices[0]] if batch is None else batch)
        for index, part in zip(indices, torch.split(output, sizes), strict=True):
            features[index] = part
    return [part for part in features if part is not None]


def forward_packed(
    trunk: Callable[[Tensor], Tensor], crops: Sequence[Float[Tensor, "_ channels _ _"]]
) -> Float[Tensor, "rows ..."]:
    """As :func:`forward_crops`, crop-major in one tensor, ready for one head call."""
    return torch.cat(forward_crops(trunk, crops))
