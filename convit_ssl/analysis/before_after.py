"""One picture of what training changed: the heads' places and gates, and where images are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convit_ssl.analysis.attention import image_attention
from convit_ssl.analysis.colours import CATEGORICAL
from convit_ssl.analysis.figures import new_figure
from convit_ssl.analysis.images import PreparedImage
from convit_ssl.analysis.locality import PositionalAttention, positional_attention
from convit_ssl.models import ConViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6


def before_after_figure(
    before: ConViT, after: ConViT, images: Sequence[PreparedImage], title: str = ""
) -> Figure:
    """Gates and positional attention of every GPSA layer, and class-token attention to images.

    Args:
        before: the network at init.
        after: the same network, trained.
        images: at most six; the maps are the mean over heads of the last layer.
        title: over the picture.
    """
    images = list(images)[:_COLUMNS]
    figure = new_figure(11, 8.4)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    top, bottom = halves
    start, now = positional_attention(before), positional_attention(after)
    _draw_places(top, start, now)
    _draw_attention(bottom, before, after, images)
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _draw_places(figure: Any, start: PositionalAttention, now: PositionalAttention) -> None:
    count = max(len(now.layers), 1)
    axes = np.asarray(figure.subplots(2, count, height_ratios=[1.5, 1], squeeze=False))
    figure.suptitle(
        "Heads of the GPSA layers: where each looks from the grey patch (rings: at init), "
        "and its gate (bar: at init)",
        fontsize=10,
    )
    finite = np.abs(now.centres[np.isfinite(now.centres)])
    half = min(float(finite.max(initial=0.5)) + 1.6, 6.5)
    for row, layer in enumerate(now.layers):
        _draw_heads(axes[0, row], start, now, row, half)
        axes[0, row].set_title(f"layer {layer}", fontsize=10)
        _draw_gates(axes[1, row], start.gates[row], now.gates[row], labelled=row == 0)


def _draw_heads(
    axis: Any, start: PositionalAttention, now: PositionalAttention, row: int, half: float
) -> None:
    from matplotlib.patches import Circle, Rectangle

    axis.add_patch(Rectangle((-0.5, -0.5), 1, 1, color="0.85"))
    for head, (x, y) in enumerate(now.centres[row]):
        colour = CATEGORICAL[head % len(CATEGORICAL)]
        ring = Circle(
            tuple(start.centres[row, head]),
            start.widths[row, head],
            fill=False,
            ec=colour,
            ls="--",
            lw=1,
        )
        axis.add_patch(ring)
        if np.isfinite(x):
            axis.add_patch(Circle((x, y), now.widths[row, head], color=colour, alpha=0.35))
            axis.text(x, y, str(head), ha="center", va="center", fontsize=8, clip_on=True)
    axis.set(xlim=(-half, half), ylim=(half, -half), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_color("0.8")


def _draw_gates(axis: Any, start: np.ndarray, now: np.ndarray, labelled: bool) -> None:
    heads = np.arange(len(now))
    colours = [CATEGORICAL[head % len(CATEGORICAL)] for head in heads]
    axis.bar(heads, now, color=colours, alpha=0.7, width=0.7)
    axis.scatter(heads, start, color="black", marker="_", s=220, zorder=3)
    axis.set(ylim=(0, 1), xticks=heads, yticks=[0, 0.5, 1])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("head", fontsize=9)
    if labelled:
        axis.set_ylabel(r"gate $\sigma(\lambda)$", fontsize=9)
    else:
        axis.set_yticklabels([])


def _draw_attention(
    figure: Any, before: ConViT, after: ConViT, images: Sequence[PreparedImage]
) -> None:
    figure.suptitle("Attention of the last layer's class token, mean over heads", fontsize=10)
    axes = np.asarray(figure.subplots(3, max(len(images), 1), squeeze=False))
    names = ("image", "at init", "trained")
    for column, image in enumerate(images):
        axes[0, column].imshow(image.picture, interpolation="nearest")
        for row, model in ((1, before), (2, after)):
            tokens = image_attention(model, image).layers[-1].class_token
            if tokens is not None:
                shown = tokens.mean(axis=0).reshape(image.grid)
                axes[row, column].imshow(shown, cmap="viridis", interpolation="nearest")
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, fontsize=9)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
