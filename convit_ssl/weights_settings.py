"""What files of weights of other projects may leave unsaid: one list, for flags and for options.

Commands that read weights have a flag for each (`convit_ssl.cli.options.weights`); training has the
sections ``weights_settings`` and ``teacher_settings``. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from convit_ssl.options import option

ACTIVATION_NAMES = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")


@dataclass
class WeightsSettings:
    """Each null where the file, or what lies beside it, says it."""

    num_heads: int | None = option(
        None, "Number of attention heads of a plain ViT.", unit="heads", least=1
    )
    eps: float | None = option(
        None, "Epsilon of the LayerNorms.", unit="variance", above=0, most=0.1, form="such as 1e-5"
    )
    activation: str | None = option(
        None,
        "Activation of the MLPs. Only networks with GELU can be trained further.",
        choices=ACTIVATION_NAMES,
    )
    img_size: list[int] | None = option(
        None,
        "Image height and width that the position embeddings were trained for.",
        unit="pixels", form="[height,width]", least=1,
    )  # fmt: skip
    mean: list[float] | None = option(
        None,
        "Per-channel mean that the network was trained with, for values from 0 to 1.",
        unit="fraction of the range", form="one number, or one for each channel",
    )  # fmt: skip
    std: list[float] | None = option(
        None,
        "Per-channel standard deviation that the network was trained with.",
        unit="fraction of the range", form="one number, or one for each channel",
    )  # fmt: skip


Given = WeightsSettings | Mapping[str, Any] | None
"""A section of options, the same of a checkpoint, or nothing."""


def loading_options(settings: Given) -> dict[str, Any]:
    """Arguments of `load_trunk` from a section of options; those that are null are left out.

    Args:
        settings: a `WeightsSettings`, a mapping with its fields, or None.
    """
    found: dict[str, Any] = {}
    for field in fields(WeightsSettings):
        if isinstance(settings, Mapping):
            value = settings.get(field.name)
        else:
            value = getattr(settings, field.name, None)
        if value is not None:
            found[field.name] = value
    if "img_size" in found:
        found["img_size"] = tuple(found["img_size"])
    images = {name: tuple(found.pop(name)) for name in ("mean", "std") if name in found}
    return {**found, "images": images} if images else found
