"""``convit-ssl scores``: label-free scores of a network beside it untrained and raw pixels."""

from __future__ import annotations

import argparse

from convit_ssl.cli.options import reading as reading_options
from convit_ssl.cli.options.values import positive
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.study.score_rows import IMAGES, VIEWED, measure
from convit_ssl.evaluation.label_free.report import scores_lines, scores_table
from convit_ssl.evaluation.results import write_json
from convit_ssl.terminal import Terminal

SUMMARY = (
    "score features without labels, next to the untrained network and raw pixels. The scores are "
    "not accuracies"
)
EXAMPLE = "convit-ssl scores random:convit_nano --data digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    reading_options.add_split(parser, "train")
    reading_options.add_token(parser, "score")
    add = parser.add_argument
    add(
        "--images", type=positive, default=IMAGES,
        help=f"number of images to read (default: {IMAGES:,}); {VIEWED} of them are also read in "
        "several random views",
    )  # fmt: skip
    add(
        "--all",
        action="store_true",
        help="show all scores, including those that did not predict accuracy",
    )
    reading_options.add_json(parser, "all scores")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    rows = measure(args)
    console = Terminal()
    if args.all:
        console.print(scores_table(rows))
    for line in scores_lines(rows):
        console.print(line, soft_wrap=True)
    if args.json:
        write_json({"scores": rows, "images": args.images, "data": args.data}, args.json)
        console.print(f"written: {args.json}", soft_wrap=True)
    return 0
