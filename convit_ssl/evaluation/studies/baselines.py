"""The table of a baselines study: means over seeds, paired differences, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from convit_ssl.evaluation.accuracy import class_figures
from convit_ssl.evaluation.paired import LEVEL, Difference, Predictions, compare, over_seeds
from convit_ssl.evaluation.verdict import describe_test, sentence

KNN, LINEAR, CLASSIFIER = "knn", "linear", "classifier"
PROBES = {
    KNN: "weighted 20-NN",
    LINEAR: "linear probe (logistic regression)",
    CLASSIFIER: "own classifier",
}
Cell = Mapping[str, Any]
"""One row and seed (None where no seed changes it): `core_seconds`, `probes` with `predicted`."""


def headline(cells: Sequence[Cell]) -> str:
    """What a row is judged by: its own classifier where it learned labels, else the probe."""
    return CLASSIFIER if all(CLASSIFIER in cell["probes"] for cell in cells) else LINEAR


def summarise(cells: Sequence[Cell], truth: np.ndarray[Any, Any], classes: Sequence[str],
              balanced: bool) -> list[dict[str, Any]]:  # fmt: skip
    """Every row with the mean over seeds and the 95 % interval of it.

    Args:
        cells: of all rows and seeds.
        truth: (N,) classes of the test images.
        classes: names.
        balanced: whether balanced accuracy is what counts.
    """
    rows = []
    for name, own in by_row(cells).items():
        probes = {}
        for probe in PROBES:
            found = [cell["probes"][probe] for cell in own if probe in cell["probes"]]
            if found:
                probes[probe] = _figures(found, truth, classes, balanced)
        minutes = [cell["core_seconds"] / 60 for cell in own]
        rows.append({
            "row": name,
            "seeds": [cell["seed"] for cell in own],
            "judged_by": headline(own),
            "probes": probes,
            "core_minutes": float(np.mean(minutes)),
            "core_minutes_by_seed": minutes,
            "steps_by_seed": [cell.get("steps") for cell in own],
        })  # fmt: skip
    return rows


def by_row(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells of each row, in order."""
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell["row"], []).append(cell)
    return rows


def _figures(
    found: Sequence[Cell], truth: np.ndarray[Any, Any], classes: Sequence[str], balanced: bool
) -> dict[str, Any]:
    each = [
        class_figures(
            np.asarray(one["predicted"]),
            truth,
            classes,
            None if one.get("scores") is None else np.asarray(one["scores"]),
        )
        for one in found
    ]
    accuracy = [float((np.asarray(one["predicted"]) == truth).mean()) for one in found]
    figures: dict[str, Any] = {"accuracy": _mean(accuracy)}
    if balanced:
        figures["balanced_accuracy"] = _mean([one.balanced_accuracy for one in each])
        recalls = np.array([one.recall for one in each], dtype=float)
        figures["recall"] = {
            str(name): _mean(recalls[:, number].tolist()) for number, name in enumerate(classes)
        }
    if all(one.auc is not None for one in each):
        figures["auc"] = _mean([one.auc for one in each if one.auc is not None])
    return figures


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and t interval over seeds; no interval from one of them."""
    mean, count = float(np.mean(values)), len(values)
    found: dict[str, Any] = {"mean": mean, "values": list(values), "sd": None, "interval_95": None}
    if count > 1:
        sd = float(np.std(values, ddof=1))
        half = float(special.stdtrit(count - 1, (1 + LEVEL) / 2)) * sd / count**0.5
        found |= {"sd": sd, "interval_95": [max(0.0, mean - half), min(1.0, mean + half)]}
    return found


def differences(
    cells: Sequence[Cell], name: str, references: Sequence[str], predictions: Predictions,
    balanced: bool,
) -> dict[str, Difference]:  # fmt: skip
    """How much better one row is than others, paired by seed and by test image.

    Two things are due to chance: the seed of training, and which images are in the test. The
    interval holds both: it is the hull of the t interval over seeds and of the bootstrap over
    test images of the means over seeds; the p-value is the larger one. With one seed it is the
    bootstrap alone.

    Args:
        cells: of all rows and seeds.
        name: the row that is asked about.
        references: rows to compare with.
        predictions: of the test; what was right is filled in here.
        balanced: by balanced accuracy.
    """
    rows = by_row(cells)
    found = {}
    for other in references:
        own, others = (_right(rows[row], predictions.truth) for row in (name, other))
        if None in others:  # pixels and frozen networks are the same for every seed
            others = dict.fromkeys(own, others[None])
        seeds = sorted(seed for seed in own if seed in others and seed is not None)
        if not seeds:
            continue
        right = {name: own, other: others}
        mean = {
            row: np.mean([by_seed[seed] for seed in seeds], axis=0)
            for row, by_seed in right.items()
        }
        both = Predictions(predictions.truth, mean, predictions.groups)
        one = compare(both, name, other, balanced)
        if len(seeds) > 1:
            by_seed = [
                Predictions(predictions.truth, {row: right[row][seed] for row in right})
                for seed in seeds
            ]
            each = over_seeds([p.score(name, balanced) - p.score(other, balanced) for p in by_seed])
            one = Difference(
                each.value,
                min(each.low, one.low),
                max(each.high, one.high),
                max(each.p_value, one.p_value),
                one.units,
            )
        found[other] = one
    return found


def _right(
    cells: Sequence[Cell], truth: np.ndarray[Any, Any]
) -> dict[int | None, np.ndarray[Any, Any]]:
    probe = headline(cells)
    return {
        cell["seed"]: (np.asarray(cell["probes"][probe]["predicted"]) == truth).astype(float)
        for cell in cells
    }


def verdict(found: Mapping[str, Difference], name: str, seeds: int, predictions: Predictions,
            labels: int, balanced: bool) -> str:  # fmt: skip
    """One sentence; with a single seed it says that it holds for that seed alone."""
    metric = "balanced accuracy" if balanced else "accuracy"
    text = sentence(found, metric, labels, describe_test(predictions))[1]
    over = f"mean of {seeds} seeds" if seeds > 1 else "one seed; another may differ by more"
    return f"{name}: {text} ({over})"


def markdown(
    rows: Sequence[Mapping[str, Any]], compared: Mapping[str, Mapping[str, Difference]],
    verdicts: Sequence[str], missing: Mapping[str, str], balanced: bool,
) -> list[str]:  # fmt: skip
    """The table, the paired differences and the verdicts, as lines of a page."""
    metric = "balanced_accuracy" if balanced else "accuracy"
    auc = any("auc" in figures for row in rows for figures in row["probes"].values())
    heads = [*PROBES.values(), *(["AUC"] if auc else []), "core-minutes"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in rows:
        cells = [_cell(row["probes"].get(probe, {}).get(metric)) for probe in PROBES]
        if auc:
            cells.append(_cell(row["probes"].get(row["judged_by"], {}).get("auc")))
        lines.append(f"| {row['row']} | {' | '.join(cells)} | {row['core_minutes']:.2f} |")
    for name, reason in missing.items():
        lines.append(f"| {name} | not measured: {reason} |{' |' * (len(heads) - 1)}")
    what = "Balanced accuracy" if balanced else "Accuracy"
    lines += ["", f"{what} in %, mean over seeds (95 % t interval over seeds).", ""]
    if compared:
        lines += ["## Paired differences, points", "", "| row | against | difference |"]
        lines.append("|---|---|---|")
        lines += [
            f"| {name} | {other} | {one.in_points()} |"
            for name, found in compared.items()
            for other, one in found.items()
        ]
        lines.append("")
    lines += ["## Verdict", "", *(f"- {text}" for text in verdicts), ""]
    return [*lines, *_every_seed(rows, metric)]


def _every_seed(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    lines = ["## Every seed", "", "| row | judged by | seed: % |", "|---|---|---|"]
    for row in rows:
        values = row["probes"][row["judged_by"]][metric]["values"]
        each = [
            f"{100 * value:.1f}" if seed is None else f"{seed}: {100 * value:.1f}"
            for seed, value in zip(row["seeds"], values, strict=True)
        ]
        lines.append(f"| {row['row']} | {PROBES[row['judged_by']]} | {', '.join(each)} |")
    return [*lines, ""]


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    text = f"{100 * found['mean']:.1f}"
    if found["interval_95"] and found["sd"]:
        low, high = (100 * value for value in found["interval_95"])
        text += f" ({low:.1f} to {high:.1f})"
    return text
