"""The dense attention maps of one image, and their compact form for a page."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convit_ssl.analysis.images import PreparedImage, data_uri
from convit_ssl.analysis.locality import positional_attention
from convit_ssl.models import ConViT


@dataclass(frozen=True)
class LayerAttention:
    """Attention of one layer to one image; rows are query patches, columns key patches.

    Attributes:
        content, mixed: rows sum to one, or to less where the class token takes its share.
        position: the positional half of a GPSA layer; None in plain layers.
        gate: share of `position` in `mixed`; None without gating.
        class_token: attention of the class token to the patches; None before it joins.
    """

    content: Float[np.ndarray, "heads patches patches"]
    position: Float[np.ndarray, "heads patches patches"] | None
    mixed: Float[np.ndarray, "heads patches patches"]
    gate: Float[np.ndarray, " heads"] | None
    class_token: Float[np.ndarray, "heads patches"] | None


@dataclass(frozen=True)
class ImageAttention:
    """Attention of every layer to one image."""

    image: PreparedImage
    layers: tuple[LayerAttention, ...]


@torch.no_grad()
def image_attention(model: ConViT, image: PreparedImage) -> ImageAttention:
    """All maps of one image.

    Args:
        model: in eval mode.
        image: from `prepare_image`; any grid.
    """
    patches = image.grid[0] * image.grid[1]
    device = next(model.parameters()).device
    _, inside = model.forward_intermediates(image.pixels[None].to(device), return_attention=True)
    layers = []
    for maps in inside.attention:
        assert maps is not None
        first = maps.content.shape[-1] - patches  # 1 where the class token has joined

        def among(attention: torch.Tensor, first: int = first) -> np.ndarray:
            return attention[..., first:, first:].float().cpu().numpy()

        layers.append(
            LayerAttention(
                among(maps.content[0]),
                None if maps.position is None else among(maps.position.flatten(0, -3)),
                among(maps.mixed[0]),
                None if maps.gate is None else maps.gate.float().cpu().numpy(),
                maps.mixed[0, :, 0, 1:].float().cpu().numpy() if first else None,
            )
        )
    return ImageAttention(image, tuple(layers))


def pack_attention(
    maps: Sequence[ImageAttention], model: ConViT, budget: int = 4_500_000
) -> dict[str, Any]:
    """What the page needs to draw every map, within `budget` characters.

    Only the content half is stored, as square roots in 8 bits relative to each row's largest
    entry, deflated. The positional half follows from three numbers per head and the mix from
    the gate, so the page computes them. Where the budget is too small, first 4 bits, then
    every second, third, ... query are kept.
    """
    places = positional_attention(model)
    packed: dict[str, Any] = {
        "layers": len(model.blocks),
        "heads": model.config.num_heads,
        "gpsa": list(places.layers),
        "gated": model.config.use_gating,
        "logits": places.logits.tolist(),
        "gates": [[None if np.isnan(g) else float(g) for g in row] for row in places.gates],
    }
    dense = sum(
        packed["layers"] * packed["heads"] * (item.image.grid[0] * item.image.grid[1]) ** 2
        for item in maps
    )
    for levels, stride in [(255, 1), (15, 1), *((15, stride) for stride in range(2, 40))]:
        # Deflating seldom halves the maps, so what is far too large is not even tried.
        if dense * (0.5 if levels == 15 else 1.0) / stride**2 > 3 * budget:
            continue
        images = [_pack_image(item, levels, stride) for item in maps]
        if sum(len(entry["content"]) for entry in images) <= budget:
            break
    return {**packed, "levels": levels, "stride": stride, "images": images}


def _pack_image(maps: ImageAttention, levels: int, stride: int) -> dict[str, Any]:
    rows, columns = maps.image.grid
    grid = np.arange(rows * columns).reshape(rows, columns)
    queries = grid[stride // 2 :: stride, stride // 2 :: stride]
    if queries.size == 0:
        queries = grid[:1, :1]
    quantised, peaks, classes = [], [], []
    for layer in maps.layers:
        content = layer.content[:, queries.ravel()]
        codes, peak = _quantise(content, levels)
        quantised.append(codes)
        peaks.append(peak)
        if layer.class_token is not None:
            classes.append(layer.class_token)
    codes = np.stack(quantised)  # (L, H, queries, N)
    if levels < 16:
        flat = codes.ravel()
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        codes = flat[::2] << 4 | flat[1::2]
    token, token_peak = _quantise(np.array(classes), 255) if classes else (None, None)
    height, width = maps.image.picture.shape[:2]
    return {
        "name": maps.image.name,
        "rows": rows,
        "columns": columns,
        "width": width,
        "height": height,
        "picture": data_uri(maps.image.picture),
        "query_rows": len(queries),
        "query_columns": len(queries[0]),
        "content": _deflate(codes),
        "peaks": _deflate(np.stack(peaks).astype("<f4")),
        "token": None if token is None else _deflate(token),
        "token_peaks": None if token_peak is None else _deflate(token_peak.astype("<f4")),
        "token_layers": [i for i, layer in enumerate(maps.layers) if layer.class_token is not None],
    }


def _quantise(values: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """round(levels * sqrt(value / row peak)), and the row peaks."""
    peak = values.max(axis=-1, keepdims=True).clip(1e-30)
    codes = np.rint(levels * np.sqrt(values / peak)).astype(np.uint8)
    return codes, peak[..., 0].astype(np.float32)


def _deflate(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
