"""``convit-ssl scores``: label-free scores of a network beside it untrained and raw pixels."""

from __future__ import annotations

import argparse

from convit_ssl.cli import probe_sources
from convit_ssl.cli.score_rows import IMAGES, VIEWED, measure
from convit_ssl.cli.values import positive
from convit_ssl.errors import UserError
from convit_ssl.evaluation.label_free_report import scores_lines, scores_table
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
    add = parser.add_argument
    add("--split", choices=("train", "val", "test"), default="train", help="of the images")
    add(
        "--token", help="feature to score, such as patch_mean_last1 (default: the last class token)"
    )
    add(
        "--images", type=positive, default=IMAGES,
        help=f"that are read at most; {VIEWED} of them in several random views",
    )  # fmt: skip
    add(
        "--all",
        action="store_true",
        help="show all scores, including those that did not predict accuracy",
    )
    add("--json", metavar="FILE", help="write all scores to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    if args.processes > 1:
        raise UserError("scores reads few images and runs in one process; leave --processes out")
    if probe_sources.is_features_folder(args):
        raise UserError(f"{args.checkpoint} holds features; scores needs the network itself")
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
