"""Train and test features of a probe: of folders that are there, or of a division."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.data.listing.division import FILE, Division, divide, part_of
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.part_names import whole_file
from convit_ssl.data.listing.subsets import choose
from convit_ssl.data.opening import find_listing
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet
from convit_ssl.evaluation.tested import Tested

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fold:
    """Features to learn from and to test on.

    Attributes:
        train: labels of its own part alone; -1 elsewhere.
        val: the same for the test part.
        groups: (N,) of train's rows; None where nothing has to stay together.
        test_groups: (labelled rows of val,) likewise.
        number: of the fold.
        count: of all folds.
    """

    train: FeatureSet
    val: FeatureSet
    groups: Rows | None = None
    test_groups: Rows | None = None
    number: int = 0
    count: int = 1

    @property
    def sets(self) -> dict[str, FeatureSet]:
        """By the names that result rows use."""
        return {"train": self.train, "val": self.val}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that probe."""
    division_options.add_arguments(parser)
    parser.add_argument(
        "--on",
        choices=("val", "test"),
        help="split to test on (default: test if it exists and references are given, else val)",
    )
    parser.add_argument(
        "--write-split", metavar="FILE", help="save the split to this file, for --split"
    )


def prepare(args: argparse.Namespace, folds: bool = True) -> Division | None:
    """The division that the options ask for, or the one that the run was trained with.

    Nothing but names is read. Call it before features are extracted.

    Args:
        args: of the command.
        folds: whether the command can test on folds, so that messages suggest it.

    Raises:
        UserError: there is nothing to test on; says what is missing.
    """
    args.division = None
    if probe_sources.is_features_folder(args):
        return None
    spec = division_options.spec_of(args)
    run_split = Path(str(args.checkpoint)) / FILE
    if not spec and run_split.is_file():
        spec = dataclasses.replace(spec, file=str(run_split))
    listing = _training_images(args)
    if spec.labels and not spec.divides and not _has(args, "val"):
        raise UserError(_missing(listing, folds))
    if not spec:
        _check_val(args, listing, folds)
        _choose_part(args)
        return None
    if args.on:
        raise UserError(
            f"--on {args.on} has no effect together with --holdout, --folds or "
            f"--split; leave it out"
        )
    if not spec.divides:
        ways = "--holdout 0.2 or --folds 5" if folds else "--holdout 0.2"
        raise UserError(f"--labels and --group-by describe a split; add {ways}")
    division = divide(listing, spec)
    if not division.listing.classes:
        raise UserError(_no_labels(listing))
    if args.write_split:
        division.write(args.write_split)
    args.division = division.used()
    return division


def _choose_part(args: argparse.Namespace) -> None:
    """What is measured: val, or test where it is asked for or references are.

    Raises:
        UserError: there is no test.
    """
    if args.on == "test":
        find_listing(probe_sources.data_name(args), args.data_dir, "test")
    elif args.on is None:
        judged = probe_references.asked(args) and _has(args, "test")
        args.on = "test" if judged else "val"


def _training_images(args: argparse.Namespace) -> Listing:
    return find_listing(probe_sources.data_name(args), args.data_dir, "train")


def _has(args: argparse.Namespace, split: str) -> bool:
    try:
        find_listing(probe_sources.data_name(args), args.data_dir, split)
    except UserError:
        return False
    return True


def _check_val(args: argparse.Namespace, train: Listing, folds: bool) -> None:
    """Say what is missing before anything is read."""
    if not train.labelled:
        raise UserError(_no_labels(train))
    try:
        find_listing(probe_sources.data_name(args), args.data_dir, "val")
    except UserError as error:
        if "val" in str(error) and "no val/" in str(error):
            raise UserError(_missing(train, folds)) from None
        raise


def _missing(train: Listing, folds: bool) -> str:
    each = ", or test each image once with --folds 5" if folds else ""
    return (
        f"{train.root} has no val/ folder, so there is nothing to test on. Hold out part of the "
        f"images with --holdout 0.2{each}. If images belong "
        f"together (patients, plates, series), add --group-by folder:1, column:NAME or name:REGEX"
    )


def _no_labels(train: Listing) -> str:
    return (
        f"the images of {train.root} have no labels, which a probe needs. Put the images of each "
        f"class into their own folder, or give --labels table.csv:file,label (or folder:2, "
        f"name:REGEX)"
    )


def folds(source: probe_sources.Source | None, args: argparse.Namespace) -> Iterator[Fold]:
    """The features of a source, once for each fold; extracted once."""
    division: Division | None = getattr(args, "division", None)
    if division is None:
        tested = getattr(args, "on", None) or "val"
        train = probe_sources.read_features(source, args, "train")
        yield Fold(train, probe_sources.read_features(source, args, tested))
        return
    whole = probe_sources.read_features(source, args, "all", division.listing)
    places = _places(whole, division)
    groups = division.groups[places]
    for number in range(division.folds):
        test = _only(whole, places, division.test_rows(number))
        yield Fold(
            _only(whole, places, _chosen(division, number, args.subset)),
            test,
            groups if division.grouped else None,
            groups[test.labelled()] if division.grouped else None,
            number,
            division.folds,
        )


def _places(features: FeatureSet, division: Division) -> Rows:
    """The row of features of each image of the split; unreadable images have none."""
    listing = division.listing
    place = {os.path.join(listing.root, file): i for i, file in enumerate(listing.files)}
    return np.array([place[whole_file(str(path))] for path in features.paths], np.int64)


def tested(found: Sequence[Fold], truth: Rows, predicted: Rows) -> Tested:
    """What was said of each image, from the folds that were read and the joined predictions."""
    last = found[-1]
    rows = [fold.val.labelled() for fold in found]
    paths = [str(fold.val.paths[row]) for fold, own in zip(found, rows, strict=True) for row in own]
    groups = [fold.test_groups for fold in found if fold.test_groups is not None]
    numbers = [np.full(len(own), fold.number) for fold, own in zip(found, rows, strict=True)]
    return Tested(
        last.sets,
        len(last.train.labelled()),
        paths,
        truth,
        predicted,
        np.concatenate(groups) if groups else None,
        np.concatenate(numbers) if len(found) > 1 else None,
    )


def _chosen(division: Division, number: int, subset: str | None) -> Rows:
    """Rows to learn from, or a subset's share of them."""
    rows = division.train_rows(number)
    if not subset:
        return rows
    wanted = set(choose(part_of(division, "train", number), subset).files)
    return np.array([row for row in rows if division.listing.files[row] in wanted], np.int64)


def _only(features: FeatureSet, places: Rows, rows: Rows) -> FeatureSet:
    """The same features with labels for some images alone; nothing is copied."""
    kept = np.isin(places, rows)
    return dataclasses.replace(features, targets=np.where(kept, features.targets, -1))
