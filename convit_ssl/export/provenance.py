"""Where a loaded trunk came from, in words and numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from convit_ssl.data.reading.value_range import Reading
from convit_ssl.export.building import layer_norm_eps
from convit_ssl.export.foreign import layout_of
from convit_ssl.export.infer import variant_of
from convit_ssl.export.keys import is_vissl, locality_dim
from convit_ssl.export.layouts import FoundTrunk
from convit_ssl.models import ConViT
from convit_ssl.models.fingerprint import weights_fingerprint


@dataclass
class Provenance:
    """Where a trunk came from. `load_trunk` leaves it as a dictionary in `model.provenance`.

    Attributes:
        path: the file that was read.
        weights: which of the file's weights were taken: teacher, student, ema or model.
        available: all that it holds, and where.
        layout: "convit_ssl", "official", "vissl", "transformers" or "torchvision" (names of the
            tensors).
        variant: the named variant of this architecture, or None.
        config: fields of the model's configuration.
        method, epoch, data, commit: from our own checkpoints, None elsewhere.
        fingerprint: sha256 of all that the outputs depend on, as loaded.
        not_loaded: tensors of the same state dict that are no part of the trunk.
        notes: what a reader should know, and where it was read.
        guesses: what neither the tensors nor anything beside them says: what was assumed, how
            it could be wrong, and which option sets it.
        names: of architectures that the file or those beside it mention.
        entry: all that our own checkpoints say about themselves.
    """

    path: str
    weights: str
    available: dict[str, str]
    layout: str
    variant: str | None
    config: dict[str, Any]
    fingerprint: str
    layer_norm_eps: float = 1e-6
    method: str | None = None
    epoch: int | None = None
    data: Any = None
    commit: str | None = None
    not_loaded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)


def provenance_of(
    path: str, model: ConViT, trunk: FoundTrunk, found: list[FoundTrunk], entry: dict[str, Any]
) -> Provenance:
    """What `load_trunk` says about a model that it made."""
    vissl = is_vissl(trunk.tensors)
    notes = []
    if vissl:
        notes.append(
            f"VISSL's own ConViT: {locality_dim(trunk.tensors)} columns per coordinate folded "
            f"into one, LayerNorm eps {layer_norm_eps(model):g} kept"
        )
    ours = "model" in entry
    layout = "vissl" if vissl else "convit_ssl" if ours else layout_of(trunk.tensors)
    config = model.config
    return Provenance(
        path=path,
        weights=trunk.role,
        available={item.role: item.where for item in reversed(found)},
        layout=layout,
        variant=variant_of(config),
        config=dataclasses.asdict(config),
        fingerprint=weights_fingerprint(model),
        layer_norm_eps=layer_norm_eps(model),
        method=entry.get("method"),
        epoch=entry.get("epoch"),
        data=entry.get("data"),
        commit=entry.get("commit"),
        notes=notes,
        entry=entry,
    )


def reading_of(model: nn.Module) -> Reading:
    """How image files became pixels in training; the default where that is not known."""
    entry = getattr(model, "provenance", {}).get("entry") or {}
    return Reading.of(entry.get("data"))
