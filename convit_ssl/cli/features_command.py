"""``convit-ssl features``: extract features once, for every probe to reuse."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from convit_ssl.cli import probe_sources
from convit_ssl.errors import UserError
from convit_ssl.evaluation.processes import run_in_processes

SUMMARY = "write features of train and val as memory-mapped .npy files, for every probe to reuse"
EXAMPLE = "convit-ssl features random:convit_nano --data digits --out features/digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    parser.add_argument("--out", required=True, help="folder for train/ and val/")
    parser.add_argument(
        "--columns",
        nargs="+",
        help="class_last1, class_last2, patch_mean_last1, ... (n counts blocks from the end)",
    )
    parser.add_argument(
        "--splits", nargs="+", choices=("train", "val"), help="of the images; both by default"
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
    if summaries and len(summaries) == 2 and all(m["labelled"] for m, _ in summaries.values()):
        print(f"next: convit-ssl linear {shlex.quote(args.out)}")
    return 0


def extract(args: argparse.Namespace) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Of each split the manifest, and what was left out; runs in every process."""
    if args.columns:
        args.columns = list(dict.fromkeys(args.columns))
    splits = args.splits or ["train", "val"]
    for split in splits:
        _check(args, split)  # before anything is written
    source = probe_sources.open_source(args)
    found = {split: probe_sources.read_features(source, args, split) for split in splits}
    return {split: (made.manifest, made.left_out(split)) for split, made in found.items()}


def _check(args: argparse.Namespace, split: str) -> None:
    try:
        probe_sources.open_images(args, split)
    except UserError as error:
        if split == "train" or args.splits:
            raise
        raise UserError(f"{error}; or leave them out with --splits train") from None
