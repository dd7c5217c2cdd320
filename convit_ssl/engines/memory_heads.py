"""Sizes of the heads and losses of the methods, for the estimate of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


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


def head_of(method: Mapping[str, Any], width: int, classes: int) -> HeadSize:
    """The head of a method behind a trunk of some width.

    Args:
        method: its options.
        width: channels of the trunk.
        classes: of the images, for methods with labels.
    """
    name = method["name"]
    if name in ("supervised", "linear"):
        average = method.get("ema") is not None
        return HeadSize(width * classes + classes, 2 * width, classes, teacher=average)
    hidden, out = int(method["hidden_dim"]), int(method["out_dim"])
    if name == "dino":
        neck = int(method["bottleneck_dim"])
        widths = [width, hidden, hidden, neck]
        kept = _kept(widths, bool(method["use_bn"])) + 2 * neck
        return HeadSize(_weights(widths) + neck * out, kept, out, teacher=True)
    if name == "swav":
        widths, prototypes = [width, hidden, out], int(method["prototypes"])
        return HeadSize(_weights(widths) + out * prototypes, _kept(widths, True), prototypes)
    if name == "moco_v3":
        first, second = [width, hidden, hidden, out], [out, hidden, out]
        return HeadSize(
            _weights(first) + _weights(second),
            _kept(first, True) + _kept(second, True),
            out,
            pairs=True,
            teacher=True,
        )
    if name == "barlow_twins":
        widths = [width, hidden, hidden, out]
        return HeadSize(_weights(widths), _kept(widths, True), out, constant=3 * out * out)
    widths = [width, hidden, out]  # SimCLR
    return HeadSize(_weights(widths), _kept(widths, True), out, pairs=True)


def _weights(widths: list[int]) -> int:
    return sum(first * second + second for first, second in pairwise(widths))


def _kept(widths: list[int], use_bn: bool) -> int:
    """Before and behind each activation, and before a batch normalisation."""
    return widths[0] + (3 if use_bn else 2) * sum(widths[1:-1]) + widths[-1]
