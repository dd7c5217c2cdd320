"""The locality figures while a run trains: cheap numbers and TensorBoard pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from convit_ssl.analysis.colours import colour
from convit_ssl.analysis.locality import (
    PositionalAttention,
    measure_nonlocality,
    positional_attention,
)
from convit_ssl.models import ConViT

Table = list[list[float | None]]
_TITLES = {
    "gates": "gate",
    "centre_distances": "centre_distance",
    "widths": "width",
    "nonlocality": "nonlocality",
}


@runtime_checkable
class Writer(Protocol):
    """The part of TensorBoard's SummaryWriter that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """One number."""

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int) -> Any:
        """One picture, (3, height, width)."""


def training_summary(
    model: ConViT, images: Float[Tensor, "batch chans height width"] | None = None
) -> dict[str, Table]:
    """Per layer and head: gates, distance and width of the positional attention, non-locality.

    Ready for a line of metrics.jsonl (None stands for "not defined"), where the report looks
    for it. Without images it reads a few hundred parameters; with images it costs one dense
    forward of each, so call it once an epoch and give at most eight.

    Args:
        model: trunk in any mode; the mode is kept.
        images: normalised images to measure `nonlocality` on; left out without.

    Returns:
        "gates", "centre_distances", "widths": one row per GPSA layer, empty for a DeiT;
        "nonlocality": one row per layer.
    """
    places = positional_attention(model)
    summary = {
        "gates": _table(places.gates),
        "centre_distances": _table(places.distances),
        "widths": _table(places.widths),
    }
    if images is not None:
        summary["nonlocality"] = _table(measure_nonlocality(model, images).mixed)
    return summary


def write_summary(
    writer: Writer, summary: Mapping[str, Table], step: int, model: ConViT | None = None
) -> None:
    """Send a summary to TensorBoard: scalars per layer and head, and pictures of the heads.

    Args:
        writer: a SummaryWriter.
        summary: from `training_summary`.
        step: epoch or iteration.
        model: also draw the gates and the positional kernels of its heads.
    """
    for name, table in summary.items():
        for layer, row in enumerate(table):
            known = [value for value in row if value is not None]
            if known:
                mean = math.fsum(known) / len(known)
                tag = f"locality_{_TITLES.get(name, name)}"
                writer.add_scalar(f"{tag}/layer_{layer:02d}", mean, step)
                if name == "gates":
                    for head, value in enumerate(row):
                        if value is not None:
                            writer.add_scalar(f"{tag}/layer_{layer:02d}_head_{head}", value, step)
    if model is None:
        return
    places = positional_attention(model)
    if places.layers:
        writer.add_image("locality/heads", heads_picture(places), step)


def heads_picture(
    places: PositionalAttention, radius: int = 5, scale: int = 4
) -> UInt8[np.ndarray, "3 height width"]:
    """The positional kernel of each head around its query, layers down, heads across.

    Each cell spans `radius` patches to all sides; its border has the colour of the gate, from
    dark (content) to bright (position).
    """
    offset = np.arange(-radius, radius + 1)
    dx, dy = np.meshgrid(offset, offset)
    a, b, c = (places.logits[..., i, None, None] for i in range(3))
    logits = a * dx + b * dy + c * (dx**2 + dy**2)  # (L, H, K, K)
    peak = logits.max(axis=(-2, -1), keepdims=True)
    kernel = np.exp(logits - peak)
    cells = np.kron(kernel, np.ones((scale, scale)))
    cells = colour(cells)  # (L, H, S, S, 3)
    gate = colour(np.nan_to_num(places.gates))[:, :, None, None]
    border = np.broadcast_to(gate, cells.shape).copy()
    border[:, :, 3:-3, 3:-3] = cells[:, :, 3:-3, 3:-3]
    framed = np.pad(border, ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)))
    layers, heads, side = framed.shape[:3]
    rows = framed.swapaxes(1, 2).reshape(layers * side, heads * side, 3)
    return np.ascontiguousarray(rows.transpose(2, 0, 1))


def _table(values: np.ndarray) -> Table:
    rows: Sequence[Sequence[float]] = values.tolist()
    return [[round(v, 6) if math.isfinite(v) else None for v in row] for row in rows]
