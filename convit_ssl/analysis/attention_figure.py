"""The attention maps of one image as a figure for a paper or a slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from convit_ssl.analysis.attention import ImageAttention, LayerAttention
from convit_ssl.data.listing.names import as_label
from convit_ssl.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LONGEST = 4  # of a panel, times its shorter side


def default_layers(maps: ImageAttention, most: int = 4) -> tuple[int, ...]:
    """Evenly spaced layers, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(maps.layers) - 1, most).round().astype(int))
    return tuple(int(layer) for layer in chosen)


def attention_figure(
    maps: ImageAttention,
    layers: Sequence[int] | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
) -> Figure:
    """One row per layer: content, positional and mixed attention of a query patch.

    Layers that the class token has joined show its attention beside the content.

    Args:
        maps: from `image_attention`.
        layers: rows; four over the depth by default.
        head: one head; default: the mean over heads.
        query: row and column of the query patch; the middle of the image by default.

    Raises:
        UserError: a layer, head or patch that is not there.
    """
    from convit_ssl.analysis.figures import new_figure

    rows, columns = maps.image.grid
    chosen = tuple(layers) if layers else default_layers(maps)
    place = query if query is not None else (rows // 2, columns // 2)
    _check(maps, chosen, head, place)
    most = max(len(_panels(maps.layers[layer])) for layer in chosen)
    across = 1.9 * min(2.0, max(0.6, columns / rows))
    # A strip is drawn wider than it is: to scale, a figure of it would be metres long.
    down = min(max(across * rows / columns, across / LONGEST), across * LONGEST)
    layout = _Layout(len(chosen), most + 1, across, down)
    figure = new_figure(layout.width, layout.height, constrained=False)
    for line, layer in enumerate(chosen):
        axis = figure.add_axes(layout.box(line, 0))
        _show_picture(axis, maps, place)
        axis.set_title(_row_title(maps.layers[layer], layer, head), fontsize=8, loc="left")
        for column, part in enumerate(_panels(maps.layers[layer]), start=1):
            values = _values(maps.layers[layer], part, head, place[0] * columns + place[1])
            axis = figure.add_axes(layout.box(line, column))
            picture = _show_map(axis, values.reshape(rows, columns))
            if part != "class token":
                _mark(axis, place)
            axis.set_title(part, fontsize=8)
            bar = figure.colorbar(picture, cax=figure.add_axes(layout.bar(line, column)))
            peak = float(picture.get_clim()[1])
            bar.set_ticks([0.0, peak], labels=["0", f"{peak:.2g}"])
            bar.ax.tick_params(labelsize=6, length=2)
    heads = "mean of the heads" if head is None else f"head {head}"
    figure.suptitle(
        f"{as_label(maps.image.name)}: {heads}, query at row {place[0]}, column {place[1]} "
        f"of {rows} x {columns} patches",
        fontsize=9,
        x=layout.left / layout.width,
        ha="left",
    )
    return figure


class _Layout:
    """Places of panels and their scale bars, in inches; far quicker than a layout engine."""

    left, top, right, title, gap = 0.15, 0.42, 0.1, 0.28, 0.55

    def __init__(self, lines: int, columns: int, across: float, down: float) -> None:
        self.across, self.down = across, down
        self.width = self.left + columns * (across + self.gap) + self.right
        self.height = self.top + lines * (down + self.title) + 0.1

    def box(self, line: int, column: int) -> tuple[float, float, float, float]:
        """(left, bottom, width, height) as shares of the figure."""
        bottom = self.height - self.top - line * (self.down + self.title) - self.title - self.down
        left = self.left + column * (self.across + self.gap)
        return self._shares(left, bottom + 0.12, self.across, self.down)

    def bar(self, line: int, column: int) -> tuple[float, float, float, float]:
        """The scale bar beside a panel."""
        left, bottom, width, height = self.box(line, column)
        return left + width + 0.05 / self.width, bottom, 0.07 / self.width, height

    def _shares(
        self, left: float, bottom: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def _check(
    maps: ImageAttention, layers: Sequence[int], head: int | None, place: tuple[int, int]
) -> None:
    depth, heads = len(maps.layers), len(maps.layers[0].content)
    for layer in layers:
        if not 0 <= layer < depth:
            raise UserError(f"layer {layer} does not exist: the model has layers 0 to {depth - 1}")
    if head is not None and not 0 <= head < heads:
        raise UserError(f"head {head} does not exist: the model has heads 0 to {heads - 1}")
    rows, columns = maps.image.grid
    if not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise UserError(
            f"query {place[0]},{place[1]} is outside the image's {rows} x {columns} patches "
            "(row,column, counted from 0)"
        )


def _panels(layer: LayerAttention) -> tuple[str, ...]:
    """GPSA layers show their two halves and the mix, plain ones content and class token."""
    if layer.position is not None:
        return ("content", "positional", "mixed")
    return ("content",) if layer.class_token is None else ("content", "class token")


def _values(layer: LayerAttention, part: str, head: int | None, query: int) -> np.ndarray:
    heads = slice(None) if head is None else slice(head, head + 1)
    if part == "class token":
        assert layer.class_token is not None
        return np.asarray(layer.class_token[heads].mean(axis=0))
    dense = {"content": layer.content, "positional": layer.position, "mixed": layer.mixed}[part]
    assert dense is not None
    return np.asarray(dense[heads, query].mean(axis=0))


def _row_title(layer: LayerAttention, index: int, head: int | None) -> str:
    if layer.gate is None:
        return f"layer {index}"
    gate = layer.gate.mean() if head is None else layer.gate[head]
    return f"layer {index}, gate {gate:.2f}"


def _show_picture(axis: Axes, maps: ImageAttention, place: tuple[int, int]) -> None:
    rows, columns = maps.image.grid
    # Coordinates in patches, whatever the picture's own resolution.
    axis.set_axis_off()
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axis.imshow(maps.image.picture, extent=extent, aspect=_aspect(rows, columns))
    _mark(axis, place)


def _show_map(axis: Axes, values: np.ndarray) -> AxesImage:
    from matplotlib.colors import PowerNorm

    axis.set_axis_off()
    peak = max(float(values.max()), 1e-12)
    norm = PowerNorm(0.5, vmin=0, vmax=peak)
    aspect = _aspect(*values.shape)
    return axis.imshow(values, cmap="viridis", norm=norm, interpolation="nearest", aspect=aspect)


def _aspect(rows: int, columns: int) -> Literal["equal", "auto"]:
    strip = max(rows, columns) > LONGEST * min(rows, columns)
    return "auto" if strip else "equal"


def _mark(axis: Axes, place: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    corner = (place[1] - 0.5, place[0] - 0.5)
    for colour, line in (("black", 2.4), ("white", 1.0)):
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, ec=colour, lw=line))
