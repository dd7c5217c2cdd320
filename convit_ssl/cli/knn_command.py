"""``convit-ssl knn``: k-nearest-neighbour accuracy of a checkpoint."""

from __future__ import annotations

import argparse
import time
from typing import Any

from convit_ssl.cli.options import reading as reading_options
from convit_ssl.cli.options.values import above_zero, positive
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import report as probe_report
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.pictures import draw_confusion
from convit_ssl.evaluation.probes.knn import (
    MAJORITY,
    METRICS,
    NEIGHBOURS,
    TEMPERATURE,
    KnnResult,
    evaluate_knn,
)
from convit_ssl.evaluation.probes.pooling import pool_knn
from convit_ssl.evaluation.processes import rank, run_in_processes
from convit_ssl.evaluation.progress import progress_bar

SUMMARY = "measure k-nearest-neighbour accuracy on val with the images of train"
EXAMPLE = "convit-ssl knn random:convit_nano --data digits --references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    probe_report.add_arguments(parser)
    probe_division.add_arguments(parser)
    add = parser.add_argument
    usual = ", ".join(map(str, NEIGHBOURS))
    add(
        "-k", type=positive, nargs="+", default=list(NEIGHBOURS),
        help=f"numbers of neighbours (default: {usual})",
    )  # fmt: skip
    add(
        "--temperature",
        type=above_zero,
        default=TEMPERATURE,
        help="temperature of the votes by cosine similarity",
    )
    add(
        "--metric", choices=METRICS, default="cosine",
        help="distance; raw pixels are measured with both, and the better one counts",
    )  # fmt: skip
    reading_options.add_token(parser, "compare")
    add("--confusion", metavar="PNG", help="write a figure of the confusion matrix to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    probe_division.prepare(args)
    rows = run_in_processes(measure, args.processes, args)
    if rows is None:
        return 0
    name = rows[-1]["figure"]
    probe_report.show(rows, probe_report.heading(name, rows[-1], args), args, "kNN")
    probe_report.show_classes(rows[-1])
    if args.confusion:
        classes = list(rows[-1]["per_class"])
        import numpy as np

        heading = f"{name}: {100 * rows[-1]['accuracy']:.1f} %"
        draw_confusion(np.array(rows[-1]["confusion"]), classes, args.confusion, heading)
        print(f"written: {args.confusion}")
    return 0


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A result row for each source; runs in every process."""
    return probe_report.measure_all(args, measure_source)


def measure_source(source: probe_sources.Source | None, args: argparse.Namespace) -> dict[str, Any]:
    """The result row of kNN of one source; None reads a features folder."""
    started = time.perf_counter()
    by_metric: dict[str, list[KnnResult]] = {}
    folds = []
    for fold in probe_division.folds(source, args):
        folds.append(fold)
        of_pixels = "pixels" in fold.train.columns
        foreign = of_pixels or list(fold.train.columns) == ["features"]  # tokens of others
        token = None if foreign else args.token
        for metric in METRICS if of_pixels else (args.metric,):
            by_metric.setdefault(metric, []).append(_evaluate(fold.sets, token, args, metric))
    pooled = {metric: pool_knn(results) for metric, results in by_metric.items()}
    best = max(pooled.values(), key=lambda result: result.accuracy[result.headline].value)
    settings = {"k": args.k, "temperature": args.temperature, "token": args.token}
    if args.metric != "cosine":
        settings["metric"] = args.metric
    figure = _figure(best, pooled, "subset" if args.subset else "all images")
    tested = probe_division.tested(folds, best.truth, best.predictions)
    return probe_report.row("knn", source, tested, figure, started, args, settings)


def _evaluate(
    sets: dict[str, FeatureSet], token: str | None, args: argparse.Namespace, metric: str
) -> KnnResult:
    with progress_bar("neighbours" if rank() == 0 else "", "images") as progress:
        return evaluate_knn(
            sets["train"], sets["val"], token, args.k, args.temperature, args.device, progress,
            metric,
        )  # fmt: skip


def _figure(best: KnnResult, by_metric: dict[str, KnnResult], extent: str) -> dict[str, Any]:
    """What a result row says of kNN: the better metric's figures, and the others beside them."""
    figure = {**best.as_dict(), "figure": best.name(extent)}
    # The default's larger k are in the JSON alone: a terminal has 80 columns.
    shown_ks = [k for k in best.accuracy if k not in NEIGHBOURS[2:] or len(best.accuracy) < 4]
    others = {f"k={k}": best.accuracy[k] for k in shown_ks if k != best.headline}
    others[f"plain {MAJORITY}-NN"] = best.majority
    figure["details"] = {name: f"{100 * a.value:.1f}" for name, a in others.items()}
    if len(by_metric) > 1:
        figure["by_metric"] = {
            metric: result.accuracy[result.headline].as_dict()
            for metric, result in by_metric.items()
        }
        shown = " · ".join(
            f"{result.name(extent)} {100 * result.accuracy[result.headline].value:.1f} %"
            for result in by_metric.values()
        )
        figure["notes"] = [*best.notes, f"raw pixels: {shown}; the better one counts"]
    return figure
