"""What a pretraining study found: kNN and linear accuracy beside raw pixels and no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convit_ssl.evaluation.probes.knn import knn_name
from convit_ssl.evaluation.results import average, write_json
from convit_ssl.evaluation.studies.design import Study
from convit_ssl.evaluation.studies.page import data_facts, describe_settings, facts, surroundings
from convit_ssl.evaluation.studies.runner import State

KINDS = ("knn", "linear")
Row = Mapping[str, Any]


def write_pretraining(
    study: Study, states: Sequence[State], rows: Sequence[Row], out: str | Path, note: str = ""
) -> list[dict[str, Any]]:
    """Write results.json and results.md; returns the summary.

    Args:
        study: the runs.
        states: where they stand.
        rows: of the probes, with `features`, `trunk` and `kind`.
        out: folder.
        note: for the page: what was expected, what to bear in mind.
    """
    out = Path(out)
    summary = summarise_probes(rows)
    about = surroundings()
    found = {
        "study": study.kind,
        "title": study.title,
        "settings": describe_settings(study.runs[0].settings),
        "note": note,
        "summary": summary,
        "results": list(rows),
        "runs": [
            {
                "name": state.run.name,
                "overrides": state.run.overrides(),
                "settings_hash": state.run.settings_hash(),
                "seconds": state.result.get("seconds"),
                "figures": state.result.get("figures"),
                "data": data_facts(state),
                **state.about,
            }
            for state in states
            if state.status == "done"
        ],
        "failed": {s.run.name: s.message for s in states if s.status == "failed"},
        **about,
    }
    write_json(found, out / "results.json")
    page = [*_tables(study, summary, note), *_every_probe(rows), *facts(states, study, about)]
    (out / "results.md").write_text("\n".join(page))
    return summary


def summarise_probes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Mean and spread over seeds for each kind of probe, choice of features and trunk."""
    groups: dict[tuple[str, str, str | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["features"], row["trunk"]), []).append(row)
    summary = []
    for (kind, features, trunk), own in groups.items():
        found = {"kind": kind, "features": features, "trunk": trunk, **average(own)}
        if kind == "knn":
            plain = average([{**row, "accuracy": _five(row)} for row in own])
            found |= {"five_nn": plain["mean"], "five_nn_spread": plain["spread"]}
        summary.append(found)
    return summary


def _five(row: Row) -> float:
    value: float = row["majority_5nn"]["accuracy"]
    return value


def _tables(study: Study, summary: Sequence[Row], note: str) -> list[str]:
    trunks = list(dict.fromkeys(run.arm.trunk for run in study.runs))
    names = list(dict.fromkeys(found["features"] for found in summary))
    heads = [f"{trunk}, {what}" for trunk in trunks for what in ("kNN", "5-NN", "linear")]
    lines = [f"# {study.title}", "", *([note, ""] if note else [])]
    lines += [f"| features | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name in names:
        cells = []
        for trunk in trunks:
            own = {f["kind"]: f for f in summary if f["features"] == name}
            own |= {f["kind"]: f for f in summary if f["features"] == name and f["trunk"] == trunk}
            knn, linear = own.get("knn"), own.get("linear")
            cells += [
                _cell(knn, "mean", "spread"),
                _cell(knn, "five_nn", "five_nn_spread"),
                _cell(linear, "mean", "spread"),
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seeds = len({run.seed for run in study.runs})
    return [
        *lines,
        "",
        f"Top-1 on val in %, mean ± standard deviation over seeds ({seeds} planned). kNN is "
        f"{knn_name(20)}, 5-NN is {knn_name(5, weighted=False)}; raw pixels by cosine or Euclidean "
        "distance, whichever is better; linear is the probe chosen on held-out images of train.",
        "",
    ]


def _cell(found: Row | None, mean: str, spread: str) -> str:
    if found is None:
        return ""
    around = "" if found[spread] is None else f" ± {100 * found[spread]:.1f}"
    return f"{100 * found[mean]:.1f}{around}"


def _every_probe(rows: Sequence[Row]) -> list[str]:
    head = "| features | trunk | seed | probe | top-1 | s |"
    lines = ["## Every probe", "", head, "|---|---|---|---|---|---|"]
    for row in rows:
        cells = row["features"], row["trunk"] or "", row["seed"], row["kind"]
        accuracy = f"{100 * row['accuracy']:.2f}"
        lines.append(f"| {' | '.join(map(str, cells))} | {accuracy} | {row['seconds']:.0f} |")
    return [*lines, ""]
