"""``convit-ssl features``: extract features once and reuse them in every probe."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.own_images import with_run_labels
from convit_ssl.data.listing.annotations import group_keys
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.subsets import choose
from convit_ssl.data.opening import find_listing
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import load_features
from convit_ssl.evaluation.features.tables import FORMATS, FeatureTable
from convit_ssl.evaluation.processes import run_in_processes

SUMMARY = "extract features of images to memory-mapped .npy files, CSV or Parquet"
EXAMPLE = "convit-ssl features random:convit_nano --data digits --out features/digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    parser.add_argument("--out", required=True, help="output folder; receives train/ and val/")
    parser.add_argument(
        "--columns",
        nargs="+",
        help="features to extract: class_last1, class_last2, patch_mean_last1, ... (1 is the last "
        "block; default: class_last1, class_last2 and patch_mean_last1)",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("train", "val"),
        help="splits to extract (default: those that exist)",
    )
    parser.add_argument(
        "--to",
        nargs="+",
        choices=FORMATS,
        default=["npy"],
        help="formats to write; csv and parquet are tables with the path, label, group, size and "
        "features of each image",
    )
    parser.add_argument(
        "--tokens",
        choices=("class", "patch"),
        default="class",
        help="class for one vector per image, patch for the map of its patches (rows x columns x "
        "channels)",
    )
    parser.add_argument(
        "--group-by",
        metavar="WHAT",
        help="what the group column of the table holds: folder:1 or name:REGEX",
    )


def run(args: argparse.Namespace) -> int:
    """Extract, and say what was written."""
    summaries = run_in_processes(extract, args.processes, args)
    for split, (manifest, left_out) in (summaries or {}).items():
        width = max(last for _, last in manifest["columns"].values())
        print(
            f"{Path(args.out) / split}: {manifest['images']:,} images x {width} "
            f"({', '.join(manifest['columns'])}), {manifest['labelled']:,} labelled, "
            + (
                "reused"
                if manifest.get("reused")
                else f"{manifest['seconds']:.1f} s, {manifest['images_per_s']:,.0f} images/s"
            )
        )
        if left_out:
            print(f"  note: {left_out}")
        for path in write_tables(args, split):
            print(f"  written: {path}")
    patches = args.tokens == "patch"
    if (
        summaries
        and not patches
        and len(summaries) == 2
        and all(m["labelled"] for m, _ in summaries.values())
    ):
        print(f"next: convit-ssl linear {shlex.quote(args.out)}")
    return 0


def extract(args: argparse.Namespace) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Of each split the manifest, and what was left out; runs in every process."""
    if args.columns:
        args.columns = list(dict.fromkeys(args.columns))
    if args.tokens == "patch":
        _check_patches(args)
    splits = _splits(args)
    for split in splits:
        _check(args, split)  # before anything is written
    source = probe_sources.open_source(args)
    found = {
        split: probe_sources.read_features(source, args, split, _of_run(args, split))
        for split in splits
    }
    return {split: (made.manifest, made.left_out(split)) for split, made in found.items()}


def _of_run(args: argparse.Namespace, split: str) -> Listing | None:
    """The images of a split with the labels that the run was given for them; None without such."""
    if not getattr(args, "run_labels", None):
        return None
    listing = find_listing(probe_sources.data_name(args), args.data_dir, split)
    listing, _ = with_run_labels(listing, args)
    return choose(listing, args.subset, split) if args.subset else listing


def write_tables(args: argparse.Namespace, split: str) -> list[Path]:
    """The tables that ``--to`` asks for, of one split whose features are written.

    Raises:
        UserError: a package is missing, or groups cannot be read.
    """
    forms = [form for form in dict.fromkeys(args.to) if form != "npy"]
    if not forms:
        return []
    folder = Path(args.out) / split
    table = FeatureTable(load_features(folder, verify=False), groups_of(args, split))
    return [table.write(form, folder) for form in forms]


def groups_of(args: argparse.Namespace, split: str) -> dict[str, str]:
    """The group of each image by its path, as asked for or as in the run; else empty."""
    group_by = args.group_by or getattr(args, "run_groups", None)
    if not group_by:
        return {}
    listing = find_listing(probe_sources.data_name(args), args.data_dir, split)
    keys = group_keys(listing, group_by, with_run_labels(listing, args)[1])
    paths = (os.path.join(listing.root, file) for file in listing.files)
    return dict(zip(paths, keys, strict=True))


def _splits(args: argparse.Namespace) -> list[str]:
    """The parts that are asked for, or those that there are."""
    if args.splits:
        return list(args.splits)
    try:
        find_listing(probe_sources.data_name(args), args.data_dir, "val")
    except UserError as error:
        if "no val/" not in str(error):
            return ["train", "val"]  # whose error names the choice
        return ["train"]  # a folder of images that nobody divided
    return ["train", "val"]


def _check_patches(args: argparse.Namespace) -> None:
    """Refuse what patch maps cannot be, before minutes of computing."""
    if args.columns:
        raise UserError("--columns has no effect with --tokens patch; leave it out")
    tables = [form for form in args.to if form != "npy"]
    if tables:
        raise UserError(f"--to {tables[0]}: patch maps are written as .npy only; leave it out")


def _check(args: argparse.Namespace, split: str) -> None:
    try:
        probe_sources.open_images(args, split)
        groups_of(args, split)
    except UserError as error:
        if split == "train" or args.splits:
            raise
        raise UserError(f"{error}; or leave them out with --splits train") from None
