"""A ConViT that starts from a trained plain ViT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convit_ssl.models.convit import ConViT
from convit_ssl.models.gpsa import GPSA

__all__ = ["GATE_OF_VIT", "FromViT", "from_vit"]

GATE_OF_VIT = 0.1
"""Share of position in the gates of a ConViT that starts from a ViT: most of it is kept."""


@dataclass(frozen=True)
class FromViT:
    """What a ConViT took from a plain ViT.

    Attributes:
        taken: weights, in numbers, that are the ViT's.
        new: weights that the ViT does not have: gates and positional attention.
        layers: GPSA layers.
        heads: offsets of the heads, rows x columns of a kernel.
        gate: share of position in every head.
    """

    taken: int
    new: int
    layers: int
    heads: tuple[int, int]
    gate: float

    def __str__(self) -> str:
        rows, columns = self.heads
        return (
            f"{self.taken:,} weights are the ViT's (patch and position embeddings, queries, keys, "
            f"values, projections, MLPs, norms, class token); {self.new:,} are new: {self.layers} "
            f"GPSA layers with heads on a {rows} x {columns} kernel and {self.gate:.2f} of their "
            f"attention on position. The class token joins after those layers, not before the "
            "first as in the ViT"
        )


def from_vit(trunk: ConViT, vit: ConViT, gate: float = GATE_OF_VIT) -> FromViT:
    """Put the weights of a plain ViT into a ConViT of the same width, depth and heads.

    The content half of each GPSA layer gets the ViT's queries, keys and values; the positional
    half attends locally, as at birth; everything else is the ViT's. As the gates close to position,
    the ConViT computes what the ViT computes when its class token joins after the GPSA layers.

    Args:
        trunk: a ConViT with gated GPSA layers, changed in place.
        vit: a network without any, with position embeddings for the same grid.
        gate: share of position in every head, between 0 and 1.

    Raises:
        ValueError: the networks differ in shape, or `trunk` has no gated layers.
    """
    layers = [block.attn for block in trunk.blocks if isinstance(block.attn, GPSA)]
    if not layers or vit.config.num_gpsa_layers:
        raise ValueError("from_vit needs a ConViT with GPSA layers and a ViT without any")
    for layer in layers:
        layer.place_heads()
        layer.set_gate(gate)
    state, tensors = trunk.state_dict(), _split(dict(vit.state_dict()), len(layers))
    new = {
        key for key in state if key.endswith(("gating_param", "pos_proj.weight", "pos_proj.bias"))
    }
    wrong = sorted(
        key
        for key, value in state.items()
        if key not in new and (key not in tensors or tensors[key].shape != value.shape)
    )
    if wrong or (unknown := sorted(set(tensors) - set(state))):
        raise ValueError(f"the ViT and the ConViT differ in {', '.join((wrong or unknown)[:3])}")
    trunk.load_state_dict({**state, **tensors})
    with torch.no_grad():
        for layer in layers:
            layer.pos_proj.bias.zero_()
    heads = trunk.config.num_heads
    rows = next(r for r in range(math.isqrt(heads), 0, -1) if heads % r == 0)
    added = sum(state[key].numel() for key in new)
    taken = sum(value.numel() for value in tensors.values())
    return FromViT(taken, added, len(layers), (rows, heads // rows), gate)


def _split(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Queries and keys of the first layers apart from their values, as GPSA keeps them."""
    for number in range(layers):
        for kind in ("weight", "bias"):
            joined = tensors.pop(f"blocks.{number}.attn.qkv.{kind}", None)
            if joined is not None:
                query, key, value = joined.chunk(3)
                tensors[f"blocks.{number}.attn.qk.{kind}"] = torch.cat((query, key))
                tensors[f"blocks.{number}.attn.v.{kind}"] = value
    return tensors
