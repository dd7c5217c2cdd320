"""What a study found: results.json, a table with mean and spread, figures beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from convit_ssl.drawing import save_figure
from convit_ssl.evaluation.results import average, write_json
from convit_ssl.evaluation.studies.arms import PAPER_SAMPLE_EFFICIENCY
from convit_ssl.evaluation.studies.design import Study
from convit_ssl.evaluation.studies.page import (
    data_facts,
    describe_settings,
    facts,
    seeds_table,
    surroundings,
)
from convit_ssl.evaluation.studies.runner import State

COLOURS = {"convit": "#1f5fa8", "deit": "#d9742b", "resnet": "#4a8f4f"}


def study_rows(states: Sequence[State]) -> list[dict[str, Any]]:
    """A result row for each run that is done and has an accuracy of its own."""
    return [
        {
            "kind": "study",
            "name": state.run.arm.name,
            "accuracy": state.result["accuracy"],
            "fraction": state.run.fraction,
            "seed": state.run.seed,
            "epochs": state.run.epochs,
            "seconds": state.result.get("seconds"),
            "images_per_s": (state.result.get("figures") or {}).get("images_per_s"),
            "data": data_facts(state),
            "fingerprint": state.marks or {"settings": state.run.settings_hash()},
            "settings": {"options": state.run.repeated_options()},
            "settings_hash": state.run.settings_hash(),
            "overrides": state.run.overrides(),
            "folder": state.folder.name,
            **state.about,
        }
        for state in states
        if state.status == "done" and state.result.get("accuracy") is not None
    ]


def summarise(study: Study, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds for each arm and fraction, beside the paper's figure."""
    summary = []
    for arm in study.arms:
        for fraction in study.fractions:
            own = [r for r in rows if r["name"] == arm.name and r["fraction"] == fraction]
            if own:
                paper = arm.paper.get(fraction)
                found = {"name": arm.name, "trunk": arm.trunk, "fraction": fraction, "paper": paper}
                summary.append({**found, **average(own)})
    return summary


def write_study(
    study: Study, states: Sequence[State], out: str | Path, note: str = ""
) -> list[dict[str, Any]]:
    """Write results.json, results.md and the figure of what is done; returns the summary.

    Args:
        study: the runs.
        states: where they stand.
        out: folder.
        note: for the page: what was expected, what to bear in mind.
    """
    out = Path(out)
    rows = study_rows(states)
    summary = summarise(study, rows)
    about = surroundings()
    found = {
        "study": study.kind,
        "title": study.title,
        "settings": describe_settings(study.runs[0].settings),
        "note": note,
        "summary": summary,
        "results": rows,
        "failed": {s.run.name: s.message for s in states if s.status == "failed"},
        **about,
    }
    write_json(found, out / "results.json")
    page = [markdown(study, summary, note), *facts(states, study, about), *seeds_table(rows)]
    (out / "results.md").write_text("\n".join(page))
    if summary:
        draw = draw_curves if study.kind == "sample-efficiency" else draw_ablation
        draw(study, summary, out / f"{study.kind.replace('-', '_')}.png")
    return summary


def markdown(study: Study, summary: Sequence[dict[str, Any]], note: str = "") -> str:
    """The table for a page: accuracy in %, mean and standard deviation over seeds."""
    heads = [f"{100 * fraction:g} %" for fraction in study.fractions]
    with_paper = any(row["paper"] is not None for row in summary) and study.kind == "ablation"
    columns = [*heads, *(f"paper, {head}" for head in heads if with_paper)]
    lines = [f"# {study.title}", "", *([note, ""] if note else [])]
    lines += [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for arm in study.arms:
        cells = [_cell(summary, arm.name, fraction) for fraction in study.fractions]
        if with_paper:
            known = [arm.paper.get(fraction) for fraction in study.fractions]
            cells += ["" if value is None else f"{100 * value:.1f}" for value in known]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    settings = study.runs[0].settings
    seeds = len({run.seed for run in study.runs})
    scaled = "scaled by 1/fraction" if settings.scale_epochs else "the same at every fraction"
    few = settings.images_per_class
    whole = "" if few is None else f" 100 % are {few:,} images of each class."
    lines += [
        "",
        f"Top-1 on val in %, mean ± standard deviation over seeds ({seeds} planned). "
        f"{settings.epochs} epochs at 100 %, {scaled}; batch {settings.batch_size}.{whole}",
        "",
    ]
    return "\n".join(lines)


def progress_table(study: Study, states: Sequence[State]) -> Table:
    """Arms by fractions: figures of what is done, and how far the rest is."""
    table = Table(title=study.title, title_justify="left", title_style="bold", box=None)
    table.add_column("", no_wrap=True)
    for fraction in study.fractions:
        table.add_column(f"{100 * fraction:g} %", justify="right")
    summary = summarise(study, study_rows(states))
    for arm in study.arms:
        cells = []
        for fraction in study.fractions:
            own = [s for s in states if s.run.arm == arm and s.run.fraction == fraction]
            cells.append(_status(own, _cell(summary, arm.name, fraction)))
        table.add_row(arm.name, *cells)
    return table


def _cell(summary: Sequence[dict[str, Any]], name: str, fraction: float) -> str:
    for row in summary:
        if row["name"] == name and row["fraction"] == fraction:
            spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
            return f"{100 * row['mean']:.1f}{spread}"
    return ""


def _status(states: Sequence[State], figure: str) -> Text:
    counts = {status: [s for s in states if s.status == status] for status in
              ("done", "running", "submitted", "failed")}  # fmt: skip
    parts = [Text(figure)] if figure else []
    if len(counts["done"]) < len(states):
        parts.append(Text(f"{len(counts['done'])}/{len(states)}", "dim"))
    parts += [Text(f"{100 * s.progress:.0f} %", "cyan") for s in counts["running"]]
    if counts["submitted"]:
        parts.append(Text(f"{len(counts['submitted'])} queued", "cyan"))
    if counts["failed"]:
        parts.append(Text(f"{len(counts['failed'])} failed", "red"))
    return Text(" ").join(parts)


def draw_curves(study: Study, summary: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against the share of labelled images, ours and the paper's side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    ours, paper = figure.subplots(1, 2)
    seeds = len({run.seed for run in study.runs})
    for name in dict.fromkeys(row["name"] for row in summary):
        rows = [row for row in summary if row["name"] == name]
        x = [100 * row["fraction"] for row in rows]
        y = [100 * row["mean"] for row in rows]
        error = [100 * (row["spread"] or 0.0) for row in rows]
        style = _style(rows[0]["trunk"], pretrained="pretrained" in name)
        ours.errorbar(x, y, error, label=name, capsize=3, **style)
    spread = f"\nmean ± s.d. of {seeds} seeds" if seeds > 1 else "\n"
    ours.set_title(f"here, {_whole(study)}{spread}", loc="left", fontsize=11)
    for name, curve in PAPER_SAMPLE_EFFICIENCY.items():
        x, y = [100 * f for f in curve], [100 * v for v in curve.values()]
        paper.plot(x, y, label=name, **_style(name.lower(), pretrained=False))
    paper.set_title("the paper (Table 2), ImageNet\n", loc="left", fontsize=11)
    for axes in (ours, paper):
        shares = sorted(100 * f for f in (study.fractions if axes is ours else _paper_fractions()))
        axes.set(xscale="log", xlabel="share of the labelled images (%)", ylabel="top-1 (%)")
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    save_figure(figure, path)


def draw_ablation(study: Study, summary: Sequence[dict[str, Any]], path: Path) -> None:
    """One dot per variant with its spread; the paper's beside ours where it has the variant."""
    from matplotlib.figure import Figure

    fraction = min(study.fractions)
    rows = [row for row in summary if row["fraction"] == fraction]
    with_paper = any(row["paper"] is not None for row in rows)
    figure = Figure(figsize=(9.5, 1.3 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 1 + with_paper, sharey=True, squeeze=False)[0]
    places = list(range(len(rows)))
    means = [100 * row["mean"] for row in rows]
    spreads = [100 * (row["spread"] or 0.0) for row in rows]
    colours = [_style(row["trunk"], False)["color"] for row in rows]
    panels[0].errorbar(means, places, xerr=spreads, fmt="none", ecolor="#888888", capsize=3)
    panels[0].scatter(means, places, c=colours, zorder=3)
    panels[0].set_yticks(places, [row["name"] for row in rows])
    panels[0].invert_yaxis()
    share = f"{100 * fraction:g} %"
    seeds = len({run.seed for run in study.runs})
    spread = f"\nmean ± s.d. of {seeds} seeds" if seeds > 1 else ""
    title = f"here, {share} of {_whole(study)}{spread}"
    panels[0].set_title(title, loc="left", fontsize=11)
    if with_paper:
        known = [(100 * row["paper"], i) for i, row in enumerate(rows) if row["paper"] is not None]
        panels[1].scatter(*zip(*known, strict=True), c=[colours[i] for _, i in known])
        title = f"the paper (Table 3), {share} of ImageNet\n"
        panels[1].set_title(title, loc="left", fontsize=11)
        panels[1].tick_params(left=False)
    for axes in panels:
        axes.set_xlabel("top-1 (%)")
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _style(trunk: str, pretrained: bool) -> dict[str, Any]:
    family = next((name for name in COLOURS if trunk.startswith(name)), "")
    return {
        "color": COLOURS.get(family, "#666666"),
        "marker": "s" if pretrained else "o",
        "linestyle": "--" if pretrained else "-",
    }


def _whole(study: Study) -> str:
    settings = study.runs[0].settings
    few = settings.images_per_class
    return settings.data if few is None else f"{settings.data} ({few:,} a class)"


def _paper_fractions() -> list[float]:
    return list(next(iter(PAPER_SAMPLE_EFFICIENCY.values())))
