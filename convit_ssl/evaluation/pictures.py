"""Pictures of evaluation results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.data.listing.names import as_label
from convit_ssl.drawing import save_figure


def draw_confusion(
    confusion: np.ndarray[Any, Any], classes: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Write a confusion matrix as a picture; each row is the share of its true class.

    Args:
        confusion: (classes, classes) counts, rows are true classes.
        classes: names; left out above 60 classes, numbers in the cells above 20.
        path: of the picture; the suffix says the format.
        title: above the picture.
    """
    from matplotlib.figure import Figure

    count = len(classes)
    classes = [as_label(name) for name in classes]
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    share = confusion / totals
    side = min(12.0, 3.4 + 0.42 * count) if count <= 60 else 9.0
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    if title:
        axes.set_title(as_label(title), loc="left")
    if count <= 60:
        upright = max(len(str(name)) for name in classes) <= 2
        axes.set_xticks(range(count), classes, rotation=0 if upright else 45, ha="right")
        if upright:
            axes.set_xticks(range(count), classes, ha="center")
        axes.set_yticks(range(count), classes)
    if count <= 20:
        for (row, column), value in np.ndenumerate(confusion):
            if value:
                shade = "white" if share[row, column] > 0.55 else "#333333"
                axes.text(
                    column, row, str(value), ha="center", va="center", color=shade, fontsize=8
                )
    save_figure(figure, path)
