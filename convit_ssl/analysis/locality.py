"""How convolutional each head still is: gates, attention centres and widths, non-locality.

Distances are in patches. Offsets are key minus query, x to the right and y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convit_ssl.models import GPSA, Block, ConViT
from convit_ssl.models.attention import SelfAttention

MAP_VALUES = 2**26  # of attention maps held at a time: 256 MB


@dataclass(frozen=True)
class PositionalAttention:
    """What the positional half of each GPSA layer has learned; one row per GPSA layer.

    A head's positional logit a dx + b dy + c (dx^2 + dy^2) with c < 0 is a Gaussian around the
    centre (-a / 2c, -b / 2c) with standard deviation 1 / sqrt(-2c) along each axis (ConViT,
    arXiv:2103.10697, equation 4: its alpha is -c, its Delta the centre).

    Attributes:
        layers: index of each GPSA layer among the blocks.
        gates: sigmoid(gating_param), the share of positional attention; NaN without gating.
        centres: attention centre (x, y) in patches; NaN where the head has no peak (c >= 0).
        widths: standard deviation along one axis, in patches; infinite where c >= 0.
        logits: (a, b, c) of each head, from which its exact map follows on any grid.
    """

    layers: tuple[int, ...]
    gates: Float[np.ndarray, "layers heads"]
    centres: Float[np.ndarray, "layers heads 2"]
    widths: Float[np.ndarray, "layers heads"]
    logits: Float[np.ndarray, "layers heads 3"]

    @property
    def distances(self) -> Float[np.ndarray, "layers heads"]:
        """Distance of each centre from the query, in patches."""
        return np.asarray(np.linalg.norm(self.centres, axis=-1))


@dataclass(frozen=True)
class NonLocality:
    """Mean attention-weighted distance of every head of every layer, in patches.

    Attributes:
        mixed: of the attention that the layer applies.
        content: of its content half; the same as `mixed` in plain layers.
        position: of its positional half; NaN in plain layers.
        uniform: the value of uniform attention on the same grid.
        grid: rows and columns of patches.
    """

    mixed: Float[np.ndarray, "layers heads"]
    content: Float[np.ndarray, "layers heads"]
    position: Float[np.ndarray, "layers heads"]
    uniform: float
    grid: tuple[int, int]


def gpsa_layers(model: ConViT) -> list[tuple[int, GPSA]]:
    """The GPSA layers of a model with their block index; empty for a DeiT."""
    found = []
    for index, block in enumerate(model.blocks):
        if isinstance(block, Block) and isinstance(block.attn, GPSA):
            found.append((index, block.attn))
    return found


def positional_attention(model: ConViT) -> PositionalAttention:
    """Gates, centres and widths of all GPSA layers, read off the parameters."""
    layers = gpsa_layers(model)
    heads = model.config.num_heads
    logits = np.full((len(layers), heads, 3), np.nan)
    gates = np.full((len(layers), heads), np.nan)
    for row, (_, attn) in enumerate(layers):
        logits[row] = attn.pos_proj.weight.detach().double().cpu().numpy()
        if attn.use_gating:
            gates[row] = attn.gate.detach().double().cpu().numpy()
    return _from_logits(tuple(index for index, _ in layers), gates, logits)


def initial_positional_attention(model: ConViT) -> PositionalAttention | None:
    """The same at the convolutional init; None where the model did not start from it."""
    config = model.config
    if not config.local_init or config.num_gpsa_layers == 0:
        return None
    fresh = GPSA(
        config.num_heads,
        config.num_heads,
        locality_strength=config.locality_strength,
        use_gating=config.use_gating,
    )
    fresh.local_init()
    depth = config.num_gpsa_layers
    logits = fresh.pos_proj.weight.detach().double().numpy()
    gates = np.full(config.num_heads, np.nan)
    if config.use_gating:
        gates = fresh.gate.detach().double().numpy()
    return _from_logits(
        tuple(range(depth)), np.tile(gates, (depth, 1)), np.tile(logits, (depth, 1, 1))
    )


def _from_logits(
    layers: tuple[int, ...], gates: np.ndarray, logits: np.ndarray
) -> PositionalAttention:
    curvature = logits[..., 2]
    peaked = curvature < 0
    safe = np.where(peaked, curvature, -1.0)
    centres = np.where(peaked[..., None], -logits[..., :2] / (2 * safe[..., None]), np.nan)
    widths = np.where(peaked, 1 / np.sqrt(-2 * safe), np.inf)
    return PositionalAttention(layers, gates, centres, widths, logits)


def grid_distances(
    grid: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "tokens tokens"]:
    """Euclidean distance in patches between each pair of patches in row-major order."""
    height, width = grid
    y = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
    x = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
    return torch.hypot(x - x[:, None], y - y[:, None])


def uniform_distance(grid: tuple[int, int]) -> float:
    """Mean distance of uniform attention: over all pairs of patches, themselves included.

    In closed form: an offset (dx, dy) occurs (width - |dx|) (height - |dy|) times.
    """
    height, width = grid
    dy, dx = np.mgrid[1 - height : height, 1 - width : width]
    count = (height - np.abs(dy)) * (width - np.abs(dx))
    return float((count * np.hypot(dx, dy)).sum() / (height * width) ** 2)


def patch_attention(
    attention: Float[Tensor, "*batch tokens tokens"], grid: tuple[int, int]
) -> Float[Tensor, "*batch patches patches"]:
    """Attention among patches alone: a class token is left out and the rows sum to one again.

    Raises:
        ValueError: neither N nor 1 + N tokens for a grid of N patches.
    """
    patches, tokens = grid[0] * grid[1], attention.shape[-1]
    if tokens == patches:
        return attention
    if tokens != patches + 1:
        raise ValueError(f"{tokens} tokens are not the {patches} patches of a {grid} grid")
    attention = attention[..., 1:, 1:]
    return attention / attention.sum(dim=-1, keepdim=True).clamp_min(1e-12)


def mean_distance(
    attention: Float[Tensor, "*batch heads tokens tokens"], grid: tuple[int, int]
) -> Float[Tensor, " heads"]:
    """Non-locality of each head: attention-weighted distance, averaged over queries and images.

    The quantity of the released `get_attention_map` (ConViT, figure 6 and appendix), on any
    grid and with a class token left out.

    Args:
        attention: dense maps whose rows (queries) sum to one.
        grid: rows and columns of patches.
    """
    among = patch_attention(attention, grid)
    weighted = (among * grid_distances(grid, among.device)).sum(dim=-1).mean(dim=-1)
    return weighted.reshape(-1, weighted.shape[-1]).mean(dim=0)


@torch.no_grad()
def measure_nonlocality(
    model: ConViT, images: Float[Tensor, "batch chans height width"]
) -> NonLocality:
    """Non-locality of every layer on its own input, as many images at a time as memory allows.

    The release logs it with the raw patch embeddings as input to every layer; see
    `released_nonlocality` for those figures.
    """
    grid = model.grid_size(*images.shape[-2:])
    shape = (len(model.blocks), model.config.num_heads)
    sums = np.zeros((3, *shape))
    was_training = model.training
    model.eval()
    tokens = grid[0] * grid[1] + 1
    at_once = max(1, MAP_VALUES // (3 * shape[0] * shape[1] * tokens**2))
    for part in images.split(at_once):
        _, inside = model.forward_intermediates(part, return_attention=True)
        for layer, maps in enumerate(inside.attention):
            assert maps is not None
            for row, attention in enumerate((maps.mixed, maps.content, maps.position)):
                if attention is None:
                    sums[row, layer] = np.nan
                    continue
                mean = mean_distance(attention, grid).double().cpu().numpy()
                sums[row, layer] += len(part) * mean
    model.train(was_training)
    mixed, content, position = sums / len(images)
    return NonLocality(mixed, content, position, uniform_distance(grid), grid)


@torch.no_grad()
def released_nonlocality(
    model: ConViT, images: Float[Tensor, "batch chans height width"]
) -> Float[np.ndarray, "layers heads"]:
    """Non-locality as the released training script logs it (facebookresearch/convit, main.py).

    Every layer sees the patch embeddings, without position embedding or norm, instead of its
    own input, so only figures of the same kind compare.
    """
    grid = model.grid_size(*images.shape[-2:])
    tokens = model.patch_embed(images)
    rows = []
    for block in model.blocks:
        assert isinstance(block, Block)
        if isinstance(block.attn, GPSA):
            attention = block.attn.attention_maps(tokens, grid).mixed
        else:
            assert isinstance(block.attn, SelfAttention)
            attention = block.attn.attention_map(tokens)
        rows.append(mean_distance(attention, grid).double().cpu().numpy())
    return np.stack(rows)
