"""``convit-ssl evaluate``: figures of features by named evaluators, those of plugins among them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from convit_ssl import plugins
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.evaluation.probes.evaluators import evaluate, get_evaluator
from convit_ssl.evaluation.processes import run_in_processes
from convit_ssl.evaluation.results import commit, now, versions, write_json

SUMMARY = "measure features with evaluators of your own"
EXAMPLE = "convit-ssl evaluate runs/demo --data digits --plugins my_evaluator.py --with purity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    add = parser.add_argument
    add(
        "--with", nargs="+", default=["rank"], dest="evaluators", metavar="NAME",
        help="evaluators to run (default: rank)",
    )  # fmt: skip
    add(
        "--plugins",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules or Python files that register evaluators",
    )
    add("--json", type=Path, metavar="FILE", help="write the metrics to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    found = run_in_processes(measure, args.processes, args)
    if found is None:
        return 0
    for name, figures in found["figures"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in figures.items()))
    if args.json:
        write_json(found, args.json)
        print(f"written: {args.json}")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of each evaluator, and what they were measured on; runs in every process."""
    plugins.load(args.plugins)
    source = None if probe_sources.is_features_folder(args) else probe_sources.open_source(args)
    for name in args.evaluators:
        get_evaluator(name)  # an unknown one is refused before features are extracted
    train, val = (probe_sources.read_features(source, args, split) for split in ("train", "val"))
    provenance = {} if source is None else source.provenance
    return {
        "name": args.checkpoint if source is None else source.name,
        "checkpoint": args.checkpoint,
        "weights": provenance.get("fingerprint"),
        "figures": {name: evaluate(name, train, val) for name in args.evaluators},
        "images": {"train": len(train), "val": len(val)},
        "commit": commit(),
        "versions": versions(),
        "time": now(),
    }
