"""A new trunk by name, as whoever owns the name makes it."""

from __future__ import annotations

from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.load import from_tensors
from convit_ssl.models import VARIANTS, ConViT, create_model


def trunk_by_name(name: str) -> ConViT:
    """``convit_small``: ours at its init; ``timm:convit_small``: timm's, at timm's init.

    Raises:
        UserError: an unknown name.
    """
    if name.startswith("timm:"):
        return from_tensors(_timm_tensors(name.removeprefix("timm:")), name)
    if name not in VARIANTS:
        raise UserError(
            f"unknown trunk {name!r}: one of {', '.join(VARIANTS)}, timm:NAME or vissl:convit"
        )
    return from_tensors(dict(create_model(name, num_classes=0).state_dict()), name)


def _timm_tensors(name: str) -> dict[str, Tensor]:
    import timm

    try:
        return dict(timm.create_model(name).state_dict())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"timm:{name}: {error}") from error
