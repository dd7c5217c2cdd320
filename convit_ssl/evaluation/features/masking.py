"""Take away content, position, or position embeddings at test time (paper, Tables 5 and 6)."""

from __future__ import annotations

import copy

import torch

from convit_ssl.errors import UserError
from convit_ssl.models import GPSA, ConViT

MASKS = ("content", "position", "pos-embed")

# sigmoid(+-100) is exactly 1 and under 1e-43: the gate's other side vanishes in float32.
SATURATED = 100.0


def mask_model(model: ConViT, mask: str) -> ConViT:
    """A copy of the model that lacks one source of information.

    Args:
        model: any ConViT; not changed.
        mask: "content" turns every gate to 1, so that GPSA heads attend by position alone;
            "position" turns every gate to 0, so that they attend by content alone;
            "pos-embed" sets the position embeddings to zero.

    Raises:
        UserError: an unknown mask, or the model has no gates or position embeddings to mask.
    """
    if mask not in MASKS:
        raise UserError(f"unknown mask {mask!r}; choose from {', '.join(MASKS)}")
    masked = copy.deepcopy(model)
    with torch.no_grad():
        if mask == "pos-embed":
            if masked.pos_embed is None:
                raise UserError(
                    "--mask pos-embed has nothing to mask: this model has no position embeddings "
                    "(use_pos_embed=False)"
                )
            masked.pos_embed.zero_()
            return masked
        layers = [module for module in masked.modules() if isinstance(module, GPSA)]
        gated = [layer for layer in layers if layer.use_gating]
        if not gated:
            raise UserError(
                f"--mask {mask} acts on the gates of GPSA, and this model has "
                f"{len(layers)} GPSA layers, none with a gate; --mask pos-embed "
                "takes its position embeddings away"
            )
        for layer in gated:
            layer.gating_param.fill_(SATURATED if mask == "content" else -SATURATED)
    return masked
