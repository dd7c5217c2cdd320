"""Memory beside the network's: images that are kept decoded, and a frozen teacher at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.data.loading.cache import DEFAULT_BYTES
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.methods import DistillOptions, options_of
from convit_ssl.options import MethodOptions
from convit_ssl.weights_settings import Given

MIB = 2.0**20
FLOAT = 4  # bytes


def decoded_mib(facts: Mapping[str, Any], data: Mapping[str, Any], processes: int) -> float:
    """MiB of decoded images that a process keeps; 0 where they are too large together.

    Args:
        facts: of the plan: ``native_size`` and ``images``.
        data: options of the data.
        processes: on this machine.
    """
    reading = Reading.of(data)
    if reading.tiles or reading.physical:
        return 0.0
    height, width = facts["native_size"]
    pixel = FLOAT * max(1, len(reading.channels or ())) if reading.native else 3
    needed = float(height * width * pixel * facts["images"])
    return needed / MIB if needed <= DEFAULT_BYTES // processes else 0.0


def teacher_mib(method: MethodOptions, settings: Given, batch: int) -> float:
    """MiB of a frozen teacher and its pass over a batch; 0 where nothing is distilled.

    A pass without gradients holds what its largest layer reads and what it gives.
    """
    options = options_of(method)
    if not isinstance(options, DistillOptions) or not options.teacher:
        return 0.0
    from convit_ssl.adapters.teachers import open_teacher

    teacher = open_teacher(options.teacher, settings)
    largest = 0

    def note(module: nn.Module, given: Any, found: Any) -> None:
        nonlocal largest
        both = (*given, found) if isinstance(found, Tensor) else given
        held = sum(one.numel() for one in both if isinstance(one, Tensor))
        largest = max(largest, held)

    leaves = [one for one in teacher.modules() if not list(one.children())]
    hooks = [one.register_forward_hook(note) for one in leaves]
    try:
        device = next(teacher.parameters()).device
        teacher(torch.zeros(1, 3, *teacher.size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    own = sum(one.numel() for one in teacher.parameters())
    return (own + largest * batch) * FLOAT / MIB
