"""The report's figures with matplotlib, for papers and slides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convit_ssl.analysis.attribution import Attribution
from convit_ssl.analysis.colours import CATEGORICAL, layer_colour
from convit_ssl.analysis.features import FeatureMap
from convit_ssl.analysis.locality import PositionalAttention
from convit_ssl.analysis.metrics import HeadSeries, downsample
from convit_ssl.analysis.serialise import CURVES
from convit_ssl.analysis.summary import RunSummary
from convit_ssl.data.listing.names import as_label
from convit_ssl.drawing import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^D"


_OWN_NAMES = re.compile(
    r"(training|nonlocality|(gates|heads|attention_\d+|features|confusion|attribution)(_\d+)?)\.png"
)


def write_figures(summaries: Sequence[RunSummary], folder: Path) -> list[Path]:
    """Draw what the runs have; figures of one run carry its number when there are several.

    Figures that an earlier report left there, of runs that are not in this one, are removed.
    """
    written = [save_figure(figure, folder / f"{name}.png") for name, figure in _shared(summaries)]
    for number, summary in enumerate(summaries, start=1):
        suffix = f"_{number}" if len(summaries) > 1 else ""
        written += [
            save_figure(figure, folder / f"{name}{suffix}.png") for name, figure in _single(summary)
        ]
    for path in set(folder.glob("*.png")) - set(written):
        if _OWN_NAMES.fullmatch(path.name):
            path.unlink()
    return written


def new_figure(width: float, height: float, constrained: bool = True) -> Figure:
    """A figure without global state; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained" if constrained else None)


def training_figure(summaries: Sequence[RunSummary]) -> Figure | None:
    """All known training curves of all runs; None without any."""
    keys = [key for key in CURVES if any(key in s.run.metrics.series for s in summaries)]
    if not keys:
        return None
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = new_figure(4.0 * columns, 2.6 * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, key in zip(axes, keys, strict=False):
        for index, summary in enumerate(summaries):
            if key in summary.run.metrics.series:
                short = downsample(summary.run.metrics.series[key], 400)
                marker = "o" if len(short.epochs) < 3 else None
                colour = CATEGORICAL[index % len(CATEGORICAL)]
                axis.plot(
                    short.epochs,
                    short.values,
                    color=colour,
                    marker=marker,
                    label=as_label(summary.run.name),
                )
        if axis.dataLim.ymin >= 0 and axis.dataLim.ymax <= 1:  # an accuracy ends at 1
            bottom, top = axis.get_ylim()
            axis.set_ylim(max(bottom, 0.0), min(top, 1.0))
        axis.set_title(CURVES[key], fontsize=10)
        axis.set_xlabel("epoch")
        _tidy(axis)
    for axis in axes[len(keys) :]:
        axis.set_axis_off()
    if len(summaries) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def gates_figure(series: HeadSeries, layers: Sequence[int]) -> Figure:
    """Gates over epochs, one panel per layer and one line per head."""
    count = series.values.shape[1]
    columns = min(5, count)
    rows = -(-count // columns)
    figure = new_figure(2.3 * columns, 2.0 * rows + 0.3)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for layer, axis in enumerate(axes):
        if layer >= count:
            axis.set_axis_off()
            continue
        for head in range(series.values.shape[2]):
            values = series.values[:, layer, head]
            marker = "o" if len(values) < 3 else None
            colour = CATEGORICAL[head % len(CATEGORICAL)]
            axis.plot(series.epochs, values, color=colour, marker=marker, lw=1.4)
        axis.set_title(f"layer {layers[layer] if layer < len(layers) else layer}", fontsize=10)
        axis.set_ylim(0, 1)
        _tidy(axis)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel(r"gate $\sigma(\lambda)$", fontsize=10)
    return figure


def heads_figure(now: PositionalAttention, start: PositionalAttention | None) -> Figure:
    """Centre and width of each head on the grid around the query, one panel per layer."""
    from matplotlib.patches import Circle, Rectangle

    count = len(now.layers)
    columns = min(5, count)
    rows = -(-count // columns)
    figure = new_figure(2.3 * columns, 2.4 * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    reach = np.abs(now.centres[np.isfinite(now.centres)])
    half = min(max(math.ceil(reach.max(initial=0) + 1) + 0.5, 2.5), 7.5)
    for row, axis in enumerate(axes):
        if row >= count:
            axis.set_axis_off()
            continue
        axis.add_patch(Rectangle((-0.5, -0.5), 1, 1, color="0.8"))
        for head, (x, y) in enumerate(now.centres[row]):
            colour = CATEGORICAL[head % len(CATEGORICAL)]
            if start is not None:
                first = start.centres[row, head]
                ring = start.widths[row, head]
                axis.add_patch(Circle(tuple(first), ring, fill=False, ec=colour, ls="--", lw=0.8))
                axis.plot([first[0], x], [first[1], y], color=colour, lw=0.8)
            if np.isfinite(x):
                gate = now.gates[row, head] if np.isfinite(now.gates[row, head]) else 0.5
                width = now.widths[row, head]
                axis.add_patch(Circle((x, y), width, color=colour, alpha=0.08 + 0.5 * gate))
                axis.add_patch(Circle((x, y), width, fill=False, ec=colour, lw=1.3))
                axis.text(x, y, str(head), ha="center", va="center", fontsize=7, clip_on=True)
        axis.set(xlim=(-half, half), ylim=(half, -half), aspect="equal", xticks=[], yticks=[])
        lines = np.arange(-half, half + 1)
        axis.vlines(lines, -half, half, color="0.9", lw=0.6, zorder=0)
        axis.hlines(lines, -half, half, color="0.9", lw=0.6, zorder=0)
        axis.set_title(f"layer {now.layers[row]}", fontsize=10)
    return figure


def nonlocality_figure(summaries: Sequence[RunSummary]) -> Figure | None:
    """Non-locality by layer of all runs, and over epochs where a run has it."""
    measured = [(i, s) for i, s in enumerate(summaries) if s.nonlocality is not None]
    histories = [s for s in summaries if s.nonlocality_history is not None]
    panels = bool(measured) + len(histories)
    if not panels:
        return None
    figure = new_figure(4.4 * panels, 3.2)
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    if measured:
        axis = axes.pop(0)
        for index, summary in measured:
            found = summary.nonlocality
            assert found is not None
            colour = CATEGORICAL[index % len(CATEGORICAL)]
            layers = np.arange(len(found.mixed))
            heads = found.mixed.shape[1]
            axis.plot(
                layers, found.mixed.mean(axis=1), color=colour, label=as_label(summary.run.name)
            )
            axis.scatter(np.repeat(layers, heads), found.mixed, color=colour, s=9, alpha=0.5)
            axis.axhline(found.uniform, color="0.5", ls=":", lw=1)
        axis.set(xlabel="layer", ylabel="non-locality (patches)")
        axis.set_ylim(0, 1.1 * axis.dataLim.ymax)  # a level curve lies below the edge
        axis.set_title("by layer (dotted: uniform attention)", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
        _tidy(axis)
    for axis, summary in zip(axes, histories, strict=True):
        history = summary.nonlocality_history
        assert history is not None
        depth = history.values.shape[1]
        for layer in range(depth):
            mean = history.values[:, layer].mean(axis=1)
            marker = "o" if len(mean) < 3 else None
            colour = layer_colour(layer, depth)
            axis.plot(history.epochs, mean, color=colour, marker=marker, label=str(layer))
        axis.set(xlabel="epoch")
        axis.set_ylim(0, 1.1 * axis.dataLim.ymax)
        axis.set_title(f"{as_label(summary.run.name)}, by layer over epochs", fontsize=10)
        axis.legend(frameon=False, fontsize=7, ncols=2, title="layer", title_fontsize=7)
        _tidy(axis)
    return figure


def feature_figure(features: FeatureMap) -> Figure:
    """The 2-D map of the features, coloured and shaped by class."""
    figure = new_figure(5.6, 4.2)
    axis = figure.subplots()
    for target in np.unique(features.targets):
        chosen = features.targets == target
        if target < 0:
            colour, marker, name = "0.5", "o", "no label"
        else:
            colour = CATEGORICAL[target % len(CATEGORICAL)]
            marker = _MARKERS[target // len(CATEGORICAL) % len(_MARKERS)]
            name = features.classes[target] if target < len(features.classes) else str(target)
        x, y = features.points[chosen].T
        axis.scatter(x, y, s=16, color=colour, marker=marker, label=as_label(name))
    axis.set(xticks=[], yticks=[], title=f"{features.method} of {len(features.points)} images")
    if 1 < len(features.classes) <= 28:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def confusion_figure(features: FeatureMap) -> Figure | None:
    """Confusion matrix as shares of the true class; None without labels or over 50 classes."""
    classified = features.classified
    if classified is None or len(features.classes) > 50:
        return None
    side = max(3.2, 0.36 * len(features.classes) + 1.4)
    figure = new_figure(side + 0.8, side)
    axis = figure.subplots()
    count = classified.confusion.sum(axis=1, keepdims=True)
    picture = axis.imshow(
        classified.confusion / np.maximum(count, 1), cmap="viridis", vmin=0, vmax=1
    )
    places = range(len(features.classes))
    names = [as_label(name if len(name) <= 20 else f"{name[:19]}…") for name in features.classes]
    axis.set_xticks(places, names, rotation=90, fontsize=8)
    axis.set_yticks(places, names, fontsize=8)
    axis.set(xlabel="taken for", ylabel="class")
    axis.set_title(f"{100 * classified.accuracy:.1f} %: {classified.method}", fontsize=8)
    figure.colorbar(picture, ax=axis, shrink=0.7, label="share of the class")
    return figure


def attribution_figure(items: Sequence[Attribution]) -> Figure:
    """Signed shares over the pictures: orange for the class, blue against it."""
    figure = new_figure(2.6 * len(items), 2.9)
    axes = np.atleast_1d(figure.subplots(1, len(items)))
    for axis, item in zip(axes, items, strict=True):
        height, width = item.image.picture.shape[:2]
        axis.imshow(item.image.picture.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
        peak = float(np.quantile(np.abs(item.values), 0.99)) or 1.0
        axis.imshow(
            item.values,
            cmap="PuOr_r",
            vmin=-peak,
            vmax=peak,
            alpha=0.65,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        axis.set_axis_off()
        axis.set_title(f"class {item.target}: {100 * item.probability:.0f} %", fontsize=9)
    return figure


def _shared(summaries: Sequence[RunSummary]) -> Iterator[tuple[str, Figure]]:
    for name, figure in (
        ("training", training_figure(summaries)),
        ("nonlocality", nonlocality_figure(summaries)),
    ):
        if figure is not None:
            yield name, figure


def _single(summary: RunSummary) -> Iterator[tuple[str, Figure]]:
    from convit_ssl.analysis.attention_figure import attention_figure

    if summary.gates is not None:
        yield "gates", gates_figure(summary.gates, summary.now.layers if summary.now else ())
    if summary.now is not None and summary.now.layers:
        yield "heads", heads_figure(summary.now, summary.start)
    for number, maps in enumerate(summary.attention, start=1):
        yield f"attention_{number:02d}", attention_figure(maps)
    if summary.features is not None:
        yield "features", feature_figure(summary.features)
        confusion = confusion_figure(summary.features)
        if confusion is not None:
            yield "confusion", confusion
    if summary.attributions:
        yield "attribution", attribution_figure(summary.attributions)


def _tidy(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", lw=0.6)
    axis.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))  # epochs, layers
    axis.tick_params(labelsize=8)
