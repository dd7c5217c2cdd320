"""What `knn` and `linear` share at the end: result rows, one table, one JSON file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from convit_ssl.cli.probe_sources import Source, open_source, untrained_like
from convit_ssl.errors import UserError
from convit_ssl.evaluation.feature_set import FeatureSet
from convit_ssl.evaluation.fingerprint import experiment_settings, hash_json
from convit_ssl.evaluation.results import result_row, results_table, write_json
from convit_ssl.evaluation.tokens import TokenFeatures
from convit_ssl.models import ConViT
from convit_ssl.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reports results."""
    parser.add_argument(
        "--references",
        action="store_true",
        help="also measure raw pixels and the same network untrained",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results, with all settings")


def sources(args: argparse.Namespace) -> list[Source]:
    """The trunk that was asked for, and the references in front of it.

    Raises:
        UserError: references of something that is no trunk.
    """
    found = [open_source(args)]
    if args.references:
        extractor = found[0].extractor
        if not isinstance(extractor, TokenFeatures) or not isinstance(extractor.model, ConViT):
            raise UserError("--references compares a trunk with pixels; CKPT is 'pixels' itself")
        if not args.checkpoint.startswith("random:"):
            found.insert(0, untrained_like(extractor.model, args))
        found.insert(0, open_source(args, "pixels"))
    return found


def row(
    kind: str,
    source: Source | None,
    sets: Mapping[str, FeatureSet],
    figure: Mapping[str, Any],
    started: float,
    args: argparse.Namespace,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """One result row for what was measured on the features of train and val."""
    train, val = sets["train"].manifest, sets["val"].manifest
    marks = {f"{split}_data": sets[split].manifest["fingerprint"]["data"] for split in sets}
    marks |= {key: train["fingerprint"][key] for key in ("transform", "columns", "precision")}
    options = ((source.provenance if source else {}).get("entry") or {}).get("config")
    if isinstance(options, dict):  # rows of one network, pretrained in two ways, are no repetition
        marks["pretraining"] = hash_json(experiment_settings(options))
    speed = val.get("images_per_s")
    return result_row(
        kind,
        source.name if source else args.checkpoint,
        figure,
        {
            "data": args.data,
            "subset": args.subset,
            "mask": args.mask,
            **settings,
        },
        marks,
        seed=args.seed,
        seconds=round(time.perf_counter() - started, 2),
        images_per_s=speed,
        images={split: len(sets[split].labelled()) for split in sets},
        unreadable={split: len(sets[split].unreadable) for split in sets},
        left_out=[text for split in sets if (text := sets[split].left_out(split))],
        weights=train["fingerprint"]["weights"],
        provenance={
            key: value
            for key, value in (source.provenance if source else {}).items()
            if key not in ("entry", "available", "not_loaded")
        },
    )


def show_classes(row: Mapping[str, Any]) -> None:
    """One line: the share recognised of each class, or of the ten weakest."""
    known = {name: value for name, value in row["per_class"].items() if value is not None}
    worst = sorted(known.items(), key=lambda item: item[1])[:10]
    text = " · ".join(f"{name} {100 * value:.1f}" for name, value in worst)
    which = "recall by class" if len(known) <= 10 else "ten weakest classes by recall"
    Terminal().print(f"{which}, %: {text}", soft_wrap=True)


def show(rows: Sequence[Mapping[str, Any]], title: str, args: argparse.Namespace) -> None:
    """Print the table and write the JSON file."""
    console = Terminal()
    console.print(results_table(rows, title))
    for text in dict.fromkeys(note for found in rows for note in found.get("notes", [])):
        console.print(f"note: {text}", style="yellow", soft_wrap=True)
    for text in rows[-1].get("left_out", []):
        console.print(f"note: {text}", style="yellow", soft_wrap=True, markup=False)
    if args.json:
        write_json({"results": list(rows)}, args.json)
        console.print(f"written: {args.json}", soft_wrap=True)
