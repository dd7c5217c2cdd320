"""``convit-ssl knn``: k-nearest-neighbour accuracy of a checkpoint."""

from __future__ import annotations

import argparse
import time
from typing import Any

from convit_ssl.cli import probe_report, probe_sources
from convit_ssl.cli.values import above_zero, positive
from convit_ssl.evaluation.knn import NEIGHBOURS, TEMPERATURE, evaluate_knn
from convit_ssl.evaluation.pictures import draw_confusion
from convit_ssl.evaluation.processes import rank, run_in_processes
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.evaluation.tokens import PixelFeatures

SUMMARY = "k-nearest-neighbour accuracy on val, by cosine similarity to the images of train"
EXAMPLE = "convit-ssl knn random:convit_nano --data digits --references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    probe_report.add_arguments(parser)
    add = parser.add_argument
    add("-k", type=positive, nargs="+", default=list(NEIGHBOURS), help="numbers of neighbours")
    add("--temperature", type=above_zero, default=TEMPERATURE)
    add("--token", help="feature to compare, such as patch_mean_last1; the last class token")
    add("--confusion", metavar="PNG", help="picture of the confusion matrix")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    rows = run_in_processes(measure, args.processes, args)
    if rows is None:
        return 0
    k = rows[-1]["headline_k"]
    images = rows[-1]["images"]
    title = f"kNN on {images['val']:,} images of val, {images['train']:,} of train (k = {k})"
    probe_report.show(rows, title, args)
    _show_classes(rows[-1])
    if args.confusion:
        classes = list(rows[-1]["per_class"])
        import numpy as np

        heading = f"kNN, k = {k}: {100 * rows[-1]['accuracy']:.1f} %"
        draw_confusion(np.array(rows[-1]["confusion"]), classes, args.confusion, heading)
        print(f"written: {args.confusion}")
    return 0


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A result row for each source; runs in every process."""
    if probe_sources.is_features_folder(args):
        return [measure_source(None, args)]
    return [measure_source(source, args) for source in probe_report.sources(args)]


def measure_source(source: probe_sources.Source | None, args: argparse.Namespace) -> dict[str, Any]:
    """The result row of kNN of one source; None reads a features folder."""
    started = time.perf_counter()
    sets = {name: probe_sources.read_features(source, args, name) for name in ("train", "val")}
    of_pixels = source is not None and isinstance(source.extractor, PixelFeatures)
    with progress_bar("neighbours" if rank() == 0 else "", "images") as progress:
        found = evaluate_knn(
            sets["train"],
            sets["val"],
            None if of_pixels else args.token,
            args.k,
            args.temperature,
            args.device,
            progress,
        )
    settings = {"k": args.k, "temperature": args.temperature, "token": args.token}
    figure = found.as_dict()
    others = {f"k={k}": a for k, a in found.accuracy.items() if k != found.headline}
    others["plain 5-NN"] = found.majority
    figure["details"] = {name: f"{100 * a.value:.1f}" for name, a in others.items()}
    return probe_report.row("knn", source, sets, figure, started, args, settings)


def _show_classes(row: dict[str, Any]) -> None:
    known = {name: value for name, value in row["per_class"].items() if value is not None}
    worst = sorted(known.items(), key=lambda item: item[1])[:10]
    text = " · ".join(f"{name} {100 * value:.1f}" for name, value in worst)
    print(f"{'per class' if len(known) <= 10 else 'ten weakest classes'}: {text}")
