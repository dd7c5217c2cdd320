"""``convit-ssl subset``: choose training images and write their names as a list."""

from __future__ import annotations

import argparse

SUMMARY = "Choose labelled training images by fraction, number, class or list."
EXAMPLE = "convit-ssl subset --data digits --per-class 10 --out ten_each.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--data", default="folder", help="built-in data set, imagenet, or folder")
    parser.add_argument("--data-dir", help="image folder, for --data folder and imagenet")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--fraction", type=float, help="fraction of each class, such as 0.05")
    choice.add_argument("--per-class", type=int, help="number of images of each class")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    parser.add_argument("--list", help="only files in this list (SimCLR's format or class/file)")
    parser.add_argument("--classes", help="first:100, file:classes.txt, or names as cat+dog")
    parser.add_argument("--out", help="write the chosen file names to this file, one per line")


def run(args: argparse.Namespace) -> int:
    """Choose, say what was chosen, write the list."""
    from collections import Counter

    from convit_ssl.data.images import files_digest
    from convit_ssl.data.listing.subsets import SubsetSpec, choose, write_list
    from convit_ssl.data.opening import find_listing

    spec = SubsetSpec(args.fraction, args.per_class, args.seed, args.list, args.classes)
    listing = find_listing(args.data, args.data_dir)
    chosen = choose(listing, spec)
    counts = Counter(chosen.targets).values()
    print(f"{len(chosen.files):,} of {len(listing.files):,} images of {listing.root}")
    if chosen.labelled:
        print(f"{len(chosen.classes)} classes, {min(counts)} to {max(counts)} images each")
    print(f"hash {files_digest(chosen.files)}")
    if args.out:
        write_list(chosen, args.out)
        print(f"written to {args.out}")
    text = str(spec) or (f"list={args.out}" if args.out else "")
    if text:
        print(f"train on it: convit-ssl train ... \"data.subset='{text}'\"")
    return 0
