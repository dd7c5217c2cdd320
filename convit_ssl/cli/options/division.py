"""The options by which images are divided: the same in every command that tests or chooses."""

from __future__ import annotations

import argparse

from convit_ssl.cli.options.values import share
from convit_ssl.data.listing.division import DivisionSpec

DATA_DIR = "folder of images, in train/<class>/ and val/<class>/ or just <class>/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that divides images."""
    group = parser.add_argument_group("splitting a collection that has no val folder")
    add = group.add_argument
    add(
        "--holdout",
        type=share,
        metavar="FRACTION",
        help="fraction of the images to hold out for testing, such as 0.2",
    )
    add(
        "--folds", type=int, metavar="K", help="k-fold cross-validation: every image is tested once"
    )
    add(
        "--group-by",
        metavar="WHAT",
        help="keep groups together: folder:1, column:patient (of --labels), name:REGEX",
    )
    add(
        "--labels",
        metavar="TABLE:COLUMNS",
        help="labels (and groups) from a CSV or Parquet table, such as "
        "table.csv:file,label,patient; or folder:2, name:REGEX",
    )
    add("--split", metavar="FILE", help="use the split saved in this file (split.csv)")
    add("--split-seed", type=int, default=0, metavar="SEED", help="seed of the split")


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


def overrides(args: argparse.Namespace) -> list[str]:
    """The same options as an experiment's key=value words; empty where none is given."""
    given = {
        "data.holdout": args.holdout,
        "data.folds": args.folds,
        "data.group_by": args.group_by,
        "data.labels": args.labels,
        "data.split": args.split,
        "data.split_seed": args.split_seed or None,
    }
    return [f"{key}={value}" for key, value in given.items() if value is not None]
