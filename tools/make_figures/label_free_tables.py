"""How well figures that need no labels rank networks."""

from __future__ import annotations

from typing import Any

from markdown_table import table


def label_free(results: list[dict[str, Any]]) -> str:
    """Rank correlations of label-free figures with kNN, over the runs of a study."""
    from convit_ssl.evaluation.label_free.ranking import rank_correlation

    head = ["collection", "runs", "RankMe", "feature deviation", "gate motion"]
    rows = []
    for result in results:
        runs = [run["figures"] for run in result["runs"] if "knn" in (run["figures"] or {})]
        gated = [figures for figures in runs if figures.get("gates")]
        cells = []
        for chosen, values in (
            (runs, [figures["rankme"] for figures in runs]),
            (runs, [figures["feature_std"] for figures in runs]),
            (gated, [gate_motion(figures["gates"]) for figures in gated]),
        ):
            found = rank_correlation(values, [figures["knn"] for figures in chosen])
            cells.append(
                f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}), {len(chosen)} runs"
            )
        rows.append([result["runs"][0]["data"]["name"], str(len(runs)), *cells])
    return table(head, rows)


def label_free_study(results: list[dict[str, Any]]) -> str:
    """What a study of label-free scores found: which passed, and rank correlations with 5-NN.

    A study with too few networks of a collection was stopped early and passes nothing.
    """
    from convit_ssl.evaluation.label_free.ranking import NETWORKS
    from convit_ssl.evaluation.label_free.scores import SCORES

    (result,) = results
    collections = result["collections"]
    runs = {name: len(found["runs"]) for name, found in collections.items()}
    titles = [SCORES[name].title for name in result["passed"]]
    if min(runs.values()) < NETWORKS:
        done = ", ".join(f"{count} on {name}" for name, count in runs.items())
        said = f"**The study was stopped early ({done}), so no score has passed.**"
    else:
        said = f"**Passed: {', '.join(titles)}.**" if titles else "**None passed.**"
    rows = []
    for name, found in result["correlations"]["knn"].items():
        if name not in SCORES:
            continue
        cells = [f"{one['rho']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
                 for one in found.values()]  # fmt: skip
        mean = sum(one["rho"] for one in found.values()) / len(found)
        rows.append([SCORES[name].title, *cells, f"{mean:+.2f}"])
    heads = [f"{name}, {count} networks" for name, count in runs.items()]
    return f"{said}\n\n" + table(["score", *heads, "mean"], rows)


def gate_motion(gates: list[list[float]]) -> float:
    """Mean distance of the gates from sigmoid(1), where they start."""
    values = [value for layer in gates for value in layer]
    return sum(abs(value - 0.7310586) for value in values) / len(values)
