"""VISSL's own trunks, to audit them and to compare outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from convit_ssl.adapters.vissl_trunk import build_vissl_trunk
from convit_ssl.errors import UserError
from convit_ssl.export.check import Difference, compare, own_size
from convit_ssl.export.keys import to_vissl
from convit_ssl.export.load import from_tensors
from convit_ssl.models import VARIANTS, ConViT


def vissl_trunk_by_name(name: str) -> ConViT:
    """``convit``, ``convit/convit_tiny_plus``, or ``convit_ssl`` for ours as VISSL builds it.

    Without a size it is the ConViT-S of VISSL's own experiments (9 heads of 64 channels).

    Raises:
        UserError: another name, or VISSL is not installed.
    """
    trunk, _, variant = name.partition("/")
    variant = variant or "convit_small_plus"
    if variant not in VARIANTS:
        raise UserError(f"vissl:{name}: the size is one of {', '.join(VARIANTS)}")
    model = build_vissl_trunk(trunk, VARIANTS[variant]).eval()
    return from_tensors(dict(model.state_dict()), f"vissl:{name}")


def vissl_difference(model: ConViT) -> Difference:
    """How far VISSL's own class, given these weights, is from our model."""
    with torch.random.fork_rng(devices=[]):
        theirs = build_vissl_trunk("convit", model.config).eval()
    grid = model.grid_size(*model.config.image_shape)
    theirs.load_state_dict(to_vissl(model.state_dict(), grid=grid), strict=True)

    def features(images: Tensor) -> Tensor:
        out: Tensor = theirs(images, None)[0]
        return out

    def ours(images: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(images), pre_logits=True)

    return compare(model, features, own_size(model), ours)
