"""Sizes of the heads and losses of the methods, for the estimate of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convit_ssl.methods import Run, get_method, options_of

ROWS = 4  # of the features that a head is tried with
# Parameters of a head that is tried with memory: the first product of tensors without it takes a
# second, in which PyTorch imports its compiler.
SMALL = 8_000_000


@dataclass(frozen=True)
class HeadSize:
    """A head in numbers of floats.

    Attributes:
        parameters: trained ones.
        saved_per_row: kept for the backward pass, for each view of an image.
        logits: width of what the loss works on.
        pairs: the loss compares each row with every other one.
        constant: whatever the batch.
        teacher: there is a second copy of the network.
    """

    parameters: int
    saved_per_row: int
    logits: int
    pairs: bool = False
    constant: int = 0
    teacher: bool = False


def head_of(method: Mapping[str, Any], width: int, classes: int, images: int = 0) -> HeadSize:
    """The head of a method behind a trunk of some width, by a pass of some rows.

    Args:
        method: its options.
        width: channels of the trunk.
        classes: of the images, for methods with labels.
        images: that are learned from, for methods that tell them apart.
    """
    kind, options = get_method(method["name"]), options_of(method)
    kept: dict[int, int] = {}
    alive: list[object] = []  # an address must not be handed out twice

    def keep(tensor: Tensor) -> Tensor:
        rows = tensor.shape[0] if tensor.dim() > 1 else 0
        if rows in (ROWS, ROWS // 2) and not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = tensor.numel()
            alive.append(storage)
        return tensor

    with torch.device("meta"):
        run = Run(kind.global_crops, num_classes=classes, num_images=images)
        head = kind.head(options, width, run)
    place = "meta"
    if sum(p.numel() for p in head.parameters()) <= SMALL:
        head._apply(lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype))
        place = "cpu"
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device(place), hooks:
        output = head(torch.zeros(ROWS, width, requires_grad=True))
    return HeadSize(
        sum(p.numel() for p in head.parameters() if p.requires_grad),
        sum(kept.values()) // ROWS + kind.loss_floats_per_row(options),
        output.shape[-1],
        kind.pairs,
        kind.loss_floats(options),
        kind.has_teacher or method.get("ema") is not None,
    )
