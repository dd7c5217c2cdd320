"""The options by which images are divided: the same in every command that tests or chooses."""

from __future__ import annotations

import argparse

from convit_ssl.cli.values import share
from convit_ssl.data.division import DivisionSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that divides images."""
    group = parser.add_argument_group("dividing images, where there is no val folder")
    add = group.add_argument
    add("--holdout", type=share, metavar="SHARE", help="hold out a test part, such as 0.2")
    add("--folds", type=int, metavar="K", help="k-fold: every image is tested once")
    add(
        "--group-by",
        metavar="WHAT",
        help="never tear apart: folder:1, column:patient (of --labels), name:REGEX",
    )
    add(
        "--labels",
        metavar="TABLE:COLUMNS",
        help="labels (and groups) from a CSV or Parquet table, as in table.csv:file,label,patient; "
        "or folder:2, name:REGEX",
    )
    add("--split", metavar="FILE", help="a division that was written down (split.csv)")
    add("--split-seed", type=int, default=0, metavar="SEED", help="of the division")


def spec_of(args: argparse.Namespace) -> DivisionSpec:
    """The division that the options ask for; nothing is read yet.

    Raises:
        UserError: options that do not go together.
    """
    return DivisionSpec(
        holdout=args.holdout,
        folds=args.folds,
        group_by=args.group_by,
        labels=args.labels,
        file=args.split,
        seed=args.split_seed,
    )
