"""Figures of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from convit_ssl.bench.contenders import CONTENDERS
from convit_ssl.drawing import save_figure


def draw_models(path: str | None, comparisons: Sequence[dict[str, Any]]) -> None:
    """Speed as a share of the plain ViT's, a panel for each size, dtype and pass.

    Where a panel has no ViT, as a share of ours.
    """
    panels: dict[str, list[dict[str, Any]]] = {}
    for comparison in comparisons:
        s = comparison["setting"]
        how = ", compiled" if s["compiled"] else ""
        name = f"ConViT-{s['size'].capitalize()}, {s['dtype']}, {s['mode']}{how}"
        panels.setdefault(name, []).append(comparison)
    if not path or not panels:
        return
    columns = min(len(panels), 4)
    with _figure(path, -(-len(panels) // columns), columns) as (figure, axes):
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, group) in zip(axes, panels.items(), strict=False):
            has_vit = all(any(r["name"] == "vit" for r in c["rows"]) for c in group)
            reference = "vit" if has_vit else "ours"
            _bars(axis, group, reference)
            axis.set_title(title, fontsize=10)
            axis.set_ylabel(f"speed, {CONTENDERS[reference]} = 1", fontsize=8)
        _legend(figure, axes[: len(panels)])


def _bars(axis: Any, group: Sequence[dict[str, Any]], reference: str) -> None:
    names = [n for n in CONTENDERS if any(r["name"] == n for c in group for r in c["rows"])]
    width = 0.84 / len(names)
    for place, name in enumerate(names):
        spots, heights = [], []
        for spot, comparison in enumerate(group):
            rows = {row["name"]: row for row in comparison["rows"]}
            if name in rows:
                # Ratios of alternating pairs, as in the tables.
                share = rows[reference]["ours_is_faster"] / rows[name]["ours_is_faster"]
                spots.append(spot + (place - (len(names) - 1) / 2) * width)
                heights.append(share)
        bars = axis.bar(spots, heights, 0.94 * width, color=_colour(name), label=CONTENDERS[name])
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # over the dotted line
        axis.bar_label(bars, fmt="{:.2f}", fontsize=5.5, padding=1, bbox=ground)
    axis.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":", zorder=0)
    settings = [comparison["setting"] for comparison in group]
    labels = [f"{s['side']} px\nbatch {s['batch']}" for s in settings]
    axis.set_xticks(range(len(group)), labels, fontsize=8)
    axis.set_ylim(0, max(1.18, 1.12 * axis.dataLim.ymax))
    margin = 0.6 if len(group) > 1 else 1.0  # a single group stands in the middle, not stretched
    axis.set_xlim(-margin, len(group) - 1 + margin)


def draw_growth(path: str | None, comparisons: Sequence[dict[str, Any]]) -> None:
    """Milliseconds of one image against its side, a panel for each size and dtype."""
    if not path or not comparisons:
        return
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    with _figure(path, 1, len(comparisons)) as (figure, axes):
        for axis, comparison in zip(axes, comparisons, strict=True):
            setting = comparison["growth"]
            for row in comparison["rows"]:
                power = "" if row["exponent"] is None else f" ~ side^{row['exponent']:.2f}"
                times = [math.nan if value is None else value for value in row["milliseconds"]]
                axis.plot(
                    setting["sides"],
                    times,
                    "o-",
                    color=_colour(row["name"]),
                    label=f"{CONTENDERS[row['name']]}{power}",
                    linewidth=2.4 if row["name"] == "ours" else 1.5,
                )
            axis.set(xscale="log", yscale="log", xlabel="image side (px)")
            axis.set_title(f"ConViT-{setting['size'].capitalize()}, {setting['dtype']}, forward",
                           fontsize=10)  # fmt: skip
            axis.set_xticks(setting["sides"], [str(side) for side in setting["sides"]])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator())
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.grid(alpha=0.25)
            axis.legend(frameon=False, fontsize=8)
        axes[0].set_ylabel("ms / image")
        figure.tight_layout()


def _colour(name: str) -> str:
    from convit_ssl.analysis.colours import CATEGORICAL

    return CATEGORICAL[list(CONTENDERS).index(name)]


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    known: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    # About 1.8 inches each; in the order of the contenders, whichever panel has them.
    labels = sorted(known, key=list(CONTENDERS.values()).index)
    fitting = int(figure.get_figwidth() / 1.8)
    columns = min(len(labels), fitting)
    lines = -(-len(labels) // columns)
    figure.legend(
        [known[label] for label in labels], labels, loc="lower center", ncols=columns, frameon=False
    )
    figure.tight_layout(rect=(0, (0.08 + 0.22 * lines) / figure.get_figheight(), 1, 1))


@contextmanager
def _figure(path: str, rows: int, columns: int) -> Iterator[tuple[Any, list[Any]]]:
    """A figure that is written whole, or not at all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns + 0.6, 2.6 * rows + 0.7), squeeze=False
    )
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    yield figure, list(axes.flat)
    save_figure(figure, path)
    plt.close(figure)
    print(f"written: {path}")
