"""results.json and results.md of a study of label-free scores, over all collections of a folder."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.evaluation.label_free.ranking import (
    COLLECTIONS,
    NEEDED,
    NETWORKS,
    Correlation,
    passes,
    rank_correlation,
)
from convit_ssl.evaluation.label_free.scores import SCORES
from convit_ssl.evaluation.results import record_folder, write_json
from convit_ssl.reading import read_record

Cell = dict[str, Any]
ACCURACIES = {"knn": "plain 5-NN", "linear": "linear probe"}
# Not scores: what a person would go by without any.
PLAIN = {"epochs": "epochs trained", "lr": "learning rate"}


def write(out: Path, stem: str | None = None) -> None:
    """The tables of what is there.

    Args:
        out: folder of the study, one sub-folder per collection.
        stem: folder that also gets result.json and README.md.
    """
    found = {
        path.parent.name: _collection(path.parent) for path in sorted(out.glob("*/study.json"))
    }
    found = {name: one for name, one in found.items() if len(one["runs"]) >= 3}
    if not found:
        (out / "results.md").write_text("Fewer than three runs are finished.\n")
        return
    correlations = {
        kind: {name: _correlations(found, get, kind) for name, get in _predictors().items()}
        for kind in ACCURACIES
    }
    passed = [name for name in SCORES if passes(correlations["knn"][name])]
    made = {
        "study": "scores",
        "passed": passed,
        "rule": _rule(),
        "correlations": {
            kind: {
                name: {data: one.as_dict() for data, one in by_data.items()}
                for name, by_data in by_score.items()
            }
            for kind, by_score in correlations.items()
        },
        "collections": found,
    }
    write_json(made, out / "results.json")
    (out / "results.md").write_text("\n".join(_page(found, correlations, passed)))
    if stem:
        place = record_folder(stem)
        shutil.copyfile(out / "results.json", place / "result.json")
        shutil.copyfile(out / "results.md", place / "README.md")


def _collection(folder: Path) -> dict[str, Any]:
    about = read_record(folder / "study.json")
    cells = {path.stem: read_record(path) for path in sorted(folder.glob("cells/*.json"))}
    pixels = cells.pop("pixels", None)
    return {
        "about": about,
        "pixels": pixels,
        "runs": [cell for cell in cells.values() if "failed" not in cell],
        "failed": {name: cell["failed"] for name, cell in cells.items() if "failed" in cell},
    }


def _predictors() -> dict[str, Callable[[Cell], float]]:
    def score(name: str) -> Callable[[Cell], float]:
        return lambda cell: float(cell["scores"][name])

    def setting(name: str) -> Callable[[Cell], float]:
        return lambda cell: float(cell["settings"][name])

    return {**{n: score(n) for n in SCORES}, **{n: setting(n) for n in PLAIN}}


def _correlations(
    found: Mapping[str, Any], get: Callable[[Cell], float], kind: str
) -> dict[str, Correlation]:
    return {
        data: rank_correlation(
            [get(run) for run in one["runs"]], [run[kind] for run in one["runs"]]
        )
        for data, one in found.items()
    }


def _rule() -> str:
    return (
        "The rule was fixed before the first run. A score passes if its Spearman correlation with "
        "plain 5-NN accuracy has a 95 % interval above 0 on every collection and a mean over "
        f"collections of at least {NEEDED}, on at least {COLLECTIONS} collections with at least "
        f"{NETWORKS} networks each."
    )


def _page(
    found: Mapping[str, Any],
    correlations: Mapping[str, Mapping[str, Mapping[str, Correlation]]],
    passed: Sequence[str],
) -> list[str]:
    titles = {**{name: score.title for name, score in SCORES.items()}, **PLAIN}
    names = [SCORES[name].title for name in passed]
    lines = ["# Which label-free scores rank networks correctly?", "", _rule(), ""]
    counts = {data: len(one["runs"]) for data, one in found.items()}
    if len(counts) < COLLECTIONS or min(counts.values()) < NETWORKS:
        done = ", ".join(f"{count} on {data}" for data, count in counts.items())
        lines.append(f"Not finished ({done}), so no score can pass yet.")
    else:
        lines.append(f"Passed: {', '.join(names)}." if names else "None passed.")
    for kind, by_score in correlations.items():
        lines += ["", f"## Against the accuracy of the {ACCURACIES[kind]}", ""]
        lines += [f"| | {' | '.join(found)} | mean |", f"|---|{'---:|' * (len(found) + 1)}"]
        for name, by_data in by_score.items():
            cells = [f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
                     for one in by_data.values()]  # fmt: skip
            mean = np.mean([one.value for one in by_data.values()])
            lines.append(f"| {titles[name]} | {' | '.join(cells)} | {mean:+.2f} |")
    lines += [
        "",
        "Spearman's correlation over networks, 95 % interval by bootstrap over networks. The last "
        "two rows are not scores; they show what the settings alone would predict.",
        "",
        *_references(found),
        *_above_untrained(found),
        *_how(found),
    ]
    return lines


def _references(found: Mapping[str, Any]) -> list[str]:
    """Scores of pixels and of untrained networks, and of the trained ones, on each collection."""
    names = list(SCORES)
    titles = " | ".join(SCORES[name].title for name in names)
    lines = [
        "## Scores and accuracies",
        "",
        f"| collection | features | plain 5-NN | linear | {titles} |",
    ]
    lines.append(f"|---|---|{'---:|' * (2 + len(names))}")
    for data, one in found.items():
        rows = {
            "raw pixels": [one["pixels"]] if one["pixels"] else [],
            "untrained, mean": _untrained(one),
            "trained, least": one["runs"], "trained, mean": one["runs"],
            "trained, most": one["runs"],
        }  # fmt: skip
        for name, cells in rows.items():
            if not cells:
                continue
            pick = {"least": np.min, "most": np.max}.get(name.rpartition(" ")[2], np.mean)
            shares = [f"{100 * pick([cell[kind] for cell in cells]):.1f}" for kind in ACCURACIES]
            values = [
                "" if cells[0]["scores"][score] is None
                else f"{pick([cell['scores'][score] for cell in cells]):.3g}"
                for score in names
            ]  # fmt: skip
            lines.append(f"| {data} | {name} | {' | '.join([*shares, *values])} |")
    return [*lines, ""]


def _untrained(one: Mapping[str, Any]) -> list[Cell]:
    return [run["untrained"] for run in one["runs"] if "untrained" in run]


def _knn_before(one: Mapping[str, Any]) -> float:
    return float(np.mean([cell["knn"] for cell in _untrained(one)]))


def _above_untrained(found: Mapping[str, Any]) -> list[str]:
    """How often a score and plain 5-NN agree on whether training helped."""
    found = {data: one for data, one in found.items() if _untrained(one)}
    if not found:
        return []
    lines = ["## Better than untrained?", "", f"| | {' | '.join(found)} |"]
    lines.append(f"|---|{'---:|' * len(found)}")
    for name, score in SCORES.items():
        if name == "gate_motion":  # it is 0 without training
            continue
        cells = []
        for one in found.values():
            score_before = np.mean([cell["scores"][name] for cell in _untrained(one)])
            pairs = [
                (run["scores"][name] > score_before, run["knn"] > _knn_before(one))
                for run in one["runs"]
            ]
            agreed = sum(first == second for first, second in pairs)
            cells.append(f"{agreed} of {len(pairs)}")
        lines.append(f"| {score.title} | {' | '.join(cells)} |")
    truly = [
        f"{sum(run['knn'] > _knn_before(one) for run in one['runs'])} of {len(one['runs'])}"
        for one in found.values()
    ]
    lines.append(f"| plain 5-NN better than untrained | {' | '.join(truly)} |")
    return [
        *lines,
        "",
        "Runs in which the score and plain 5-NN agree on whether the trained network is better "
        "than the mean of untrained networks of the same architecture. An answer that is always "
        "the same agrees as often as the last row says, or as the rest.",
        "",
    ]


def _how(found: Mapping[str, Any]) -> list[str]:
    lines = ["## How it was made", ""]
    for data, one in found.items():
        about, runs = one["about"], one["runs"]
        seconds = sum(run["seconds"] for run in runs)
        lines.append(f"- {data}: `{shlex.join(about['command'])}`")
        machine = about["hardware"]
        lines.append(
            f"  {len(runs)} runs, {len(one['failed'])} failed, {runs[0]['images']:,} images to "
            f"learn from, {runs[0]['tested']:,} tested, {seconds / 60:.0f} minutes; "
            f"{machine['cpu']}, {machine['cores']} core(s), "
            f"torch {about['versions'].get('torch', '?')}, commit {about['commit'] or 'unknown'}."
        )
        for name, reason in one["failed"].items():
            lines.append(f"  - run {name} failed: {reason}")
    return [
        *lines,
        "- Method, epochs, learning rate, least crop and colour changes of a run are drawn from "
        "its number alone; all are in the JSON file. Networks of a collection have one "
        "architecture. Scores read the images of train; plain 5-NN and the logistic regression "
        "learn from these images and are tested on held-out ones.",
        "- These are small networks after short training. What holds for them need not hold for "
        "large ones.",
        "",
    ]
