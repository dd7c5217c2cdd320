"""``convit-ssl linear``: linear-probe accuracy of a checkpoint."""

from __future__ import annotations

import argparse
import time
from typing import Any

from convit_ssl.cli.options.values import positive, share
from convit_ssl.cli.probe import division as probe_division
from convit_ssl.cli.probe import report as probe_report
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.evaluation.probes.linear import LinearConfig, LinearResult, evaluate_linear
from convit_ssl.evaluation.probes.pooling import pool_linear
from convit_ssl.evaluation.processes import rank, run_in_processes
from convit_ssl.evaluation.progress import progress_bar

SUMMARY = (
    "measure linear-probe accuracy. 13 learning rates x 4 choices of tokens are trained in one "
    "pass. The best is chosen on held-out training images, and only that one is tested on val. "
    "Also fits a logistic regression"
)
EXAMPLE = "convit-ssl linear random:convit_nano --data digits --references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    probe_report.add_arguments(parser)
    probe_division.add_arguments(parser)
    add = parser.add_argument
    add(
        "--epochs",
        type=positive,
        default=LinearConfig.epochs,
        help="epochs (default: 100), but at least 2,000 and at most 12,500 steps",
    )
    add(
        "--hold-out",
        type=share,
        default=LinearConfig.hold_out,
        help="fraction of train to hold out for choosing the probe",
    )
    add(
        "--no-refit",
        action="store_true",
        help="test the head that was fitted without the held-out images",
    )
    add("--no-standardise", action="store_true", help="do not standardise the features")
    add("--no-logistic", action="store_true", help="skip the logistic regression")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    probe_division.prepare(args)
    rows = run_in_processes(measure, args.processes, args)
    if rows is None:
        return 0
    title = probe_report.heading("linear probe", rows[-1], args)
    probe_report.show(rows, title, args, "linear probe")
    probe_report.show_classes(rows[-1])
    return 0


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A result row for each source; runs in every process."""
    return probe_report.measure_all(args, measure_source)


def measure_source(source: probe_sources.Source | None, args: argparse.Namespace) -> dict[str, Any]:
    """The result row of the linear probe of one source; None reads a features folder."""
    started = time.perf_counter()
    config = LinearConfig(
        epochs=args.epochs,
        hold_out=args.hold_out,
        seed=args.seed,
        refit=not args.no_refit,
        standardise=not args.no_standardise,
        logistic=not args.no_logistic,
    )
    folds = list(probe_division.folds(source, args))
    found = pool_linear([_evaluate(fold, config, args) for fold in folds])
    figure = {**found.as_dict(), "details": _details(found)}
    # The seed has a place of its own: rows that differ in it alone may be averaged.
    settings = {key: value for key, value in figure.pop("config").items() if key != "seed"}
    tested = probe_division.tested(folds, found.truth, found.predictions)
    return probe_report.row("linear", source, tested, figure, started, args, settings)


def _evaluate(
    fold: probe_division.Fold, config: LinearConfig, args: argparse.Namespace
) -> LinearResult:
    label = "linear heads" + f", fold {fold.number + 1} of {fold.count}" * (fold.count > 1)
    with progress_bar(label if rank() == 0 else "", "steps") as progress:
        return evaluate_linear(
            fold.train,
            fold.val,
            config,
            device=args.device,
            progress=None if progress is None else lambda part, n, all_: progress(n, all_, part),
            groups=fold.groups,
        )


def _details(found: LinearResult) -> dict[str, str]:
    details = {}
    if found.logistic is not None:
        details["logistic"] = f"{100 * found.logistic.value:.1f}"
    class_tokens = sum(name.startswith("class") for name in found.head.columns)
    mean = any(name.startswith("patch_mean") for name in found.head.columns)
    read = [f"{class_tokens} cls"] * bool(class_tokens) + ["mean"] * mean
    details["tokens"] = " + ".join(read) or "all"
    details["lr"] = f"{found.head.learning_rate:g}"
    return details
