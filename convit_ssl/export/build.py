"""A new trunk by name, as whoever owns the name makes it."""

from __future__ import annotations

from torch import nn

from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.errors import UserError
from convit_ssl.export.load import from_tensors
from convit_ssl.export.sources import stated_by_timm
from convit_ssl.export.stated import Stated
from convit_ssl.models import VARIANTS, ConViT, create_model


def trunk_by_name(name: str) -> ConViT:
    """``convit_small``: ours at its init; ``timm:convit_small``: timm's, at timm's init.

    Raises:
        UserError: an unknown name.
    """
    if name.startswith("timm:"):
        model = _timm_model(name.removeprefix("timm:"))
        return from_tensors(dict(model.state_dict()), name, stated_by_timm(model))
    if name not in VARIANTS:
        raise UserError(
            f"unknown trunk {name!r}: one of {', '.join(VARIANTS)}, timm:NAME or vissl:convit"
        )
    own = create_model(name, num_classes=0)
    stated = Stated(
        num_heads=own.config.num_heads,
        eps=1e-6,
        activation="gelu",
        sizes=(own.config.image_shape,),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        origin=dict.fromkeys(("num_heads", "eps", "activation", "sizes", "mean", "std"), "you"),
    )
    return from_tensors(dict(own.state_dict()), name, stated)


def _timm_model(name: str) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name)
        return model
    except (RuntimeError, ValueError) as error:
        raise UserError(f"timm:{name}: {error}") from error
