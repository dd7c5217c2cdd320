"""Tables, JSON, Markdown and figures of the benchmarks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from convit_ssl.bench.contenders import CONTENDERS
from convit_ssl.evaluation.results import commit, hardware, versions, write_json


def environment() -> dict[str, Any]:
    """What the figures of one run depend on."""
    return {
        "command": ["convit-ssl", *sys.argv[1:]],
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


MODEL_COLUMNS = (
    "network", "ms / image", "quartiles", "images/s", "ours is", "at best", "saved MiB",
    "+ a step", "ops", "peak MiB", "MFU", "of GEMM",
)  # fmt: skip


def model_title(comparison: dict[str, Any]) -> str:
    """What one comparison of models was about."""
    s = comparison["setting"]
    how = ", compiled" if s["compiled"] else ""
    return f"{s['size']} at {s['side']} px, batch {s['batch']}, {s['dtype']}, {s['mode']}{how}"


def model_cells(comparison: dict[str, Any]) -> list[list[str]]:
    """One line for each contender."""
    lines = []
    for row in comparison["rows"]:
        low, high = row["quartiles"]
        lines.append(
            [
                CONTENDERS[row["name"]],
                f"{row['milliseconds']:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{row['images_per_s']:.1f}",
                "" if row["name"] == "ours" else f"{row['ours_is_faster']:.2f} x",
                "" if row["name"] == "ours" else f"{row['ours_is_faster_at_best']:.2f} x",
                f"{row['saved_mib']:.1f}",
                f"{row['saved_mib_per_step']:.1f}",
                _or_dash(row["operations"], "d"),
                _or_dash(row["peak_mib"], ".0f"),
                _or_dash(row["mfu"], ".1%"),
                _or_dash(row["of_ceiling"], ".1%"),
            ]
        )
    return lines


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def print_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table on the terminal; columns that hold nothing are left out."""
    shown = _shown(columns, lines)
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i in shown:
        if columns[i] != "quartiles":  # the files have them
            is_text = any(line[i][:1].isalpha() for line in lines)
            table.add_column(columns[i], justify="left" if i == 0 or is_text else "right")
    for line in lines:
        table.add_row(*(line[i] for i in shown if columns[i] != "quartiles"))
    Console(highlight=False).print(table)


def _shown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    return [i for i in range(len(columns)) if any(line[i] not in ("", "-") for line in lines)]


def write_report(path: str | None, kind: str, comparisons: list[dict[str, Any]]) -> None:
    """The whole run as JSON."""
    if path:
        write_json({"kind": kind, **environment(), "comparisons": comparisons}, path)
        print(f"written: {path}")


def write_markdown(
    path: str | None,
    heading: str,
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    notes: Sequence[str] = (),
) -> None:
    """The same tables for a reader, with the command that made them."""
    if not path:
        return
    about = environment()
    machine = about["hardware"]
    lines = [
        f"# {heading}",
        "",
        f"`{' '.join(about['command'])}`, {about['date']}, commit {about['commit']}.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {about['threads']} thread(s); "
        + (f"{', '.join(machine['gpus'])}; " if machine["gpus"] else "")
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + f". Load of the machine at the end: {about['load_average'][0]}.",
        "",
        *(line for note in notes for line in (note, "")),
    ]
    for title, columns, body in tables:
        shown = _shown(columns, body)
        lines += [f"## {title}", ""]
        lines.append("| " + " | ".join(columns[i] for i in shown) + " |")
        lines.append("|" + "|".join("---" if i == 0 else "---:" for i in shown) + "|")
        lines += ["| " + " | ".join(row[i] for i in shown) + " |" for row in body]
        lines.append("")
    _write_text(path, "\n".join(lines))
    print(f"written: {path}")


def _write_text(path: str, text: str) -> None:
    partial = Path(f"{path}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text)
    os.replace(partial, path)


def draw_models(path: str | None, comparisons: list[dict[str, Any]]) -> None:
    """Speed against image side, a panel for each size, dtype and mode."""
    if not path:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    from convit_ssl.analysis.colours import CATEGORICAL

    panels: dict[str, list[dict[str, Any]]] = {}
    for comparison in comparisons:
        s = comparison["setting"]
        panels.setdefault(f"{s['size']}, {s['dtype']}, {s['mode']}", []).append(comparison)
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns + 0.6, 2.9 * rows + 0.7), squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, group) in zip(axes.flat, panels.items(), strict=False):
        names = [row["name"] for row in group[0]["rows"]]
        for name in names:
            colour = CATEGORICAL[list(CONTENDERS).index(name)]
            sides = [comparison["setting"]["side"] for comparison in group]
            speeds = [
                row["images_per_s"] for c in group for row in c["rows"] if row["name"] == name
            ]
            width = 2.4 if name == "ours" else 1.5
            axis.plot(sides, speeds, "o-", color=colour, label=CONTENDERS[name], linewidth=width)
        axis.set(xscale="log", yscale="log", title=title, xlabel="image side (px)")
        axis.set_xticks(sides, [str(side) for side in sides])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in axes[:, 0]:
        axis.set_ylabel("images/s")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    suffix = Path(path).suffix or ".png"
    partial = f"{path}.{os.getpid()}{suffix}"
    figure.savefig(partial, dpi=150)
    plt.close(figure)
    os.replace(partial, path)
    print(f"written: {path}")
