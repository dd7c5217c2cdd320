"""``convit-ssl retrieve``: are the most similar images of the same class, or the same group?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from convit_ssl.cli.options import reading as reading_options
from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.references import Missing, asked
from convit_ssl.data.listing.annotations import group_keys, labelled
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.part_names import whole_file
from convit_ssl.data.opening import find_listing
from convit_ssl.errors import UserError
from convit_ssl.evaluation.paired import Predictions, compare
from convit_ssl.evaluation.probes.retrieval import Retrieval, retrieve
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.verdict import Verdict, sentence
from convit_ssl.terminal import Terminal

SUMMARY = (
    "measure image retrieval: for each image, how often the most similar ones are of its class or "
    "group (recall@1, recall@5, mAP)"
)
EXAMPLE = "convit-ssl retrieve random:convit_nano --data digits --split val --references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    reading_options.add_split(parser, when="val if there is one, else train")
    reading_options.add_labels(parser)
    add = parser.add_argument
    add(
        "--by", choices=("label", "group"), default="label",
        help="what counts as a match. By label with --group-by, images of the same group (a "
        "patient) are not counted",
    )  # fmt: skip
    reading_options.add_token(parser, "compare")
    probe_references.add_arguments(parser)
    reading_options.add_json(parser)


@dataclass(frozen=True)
class Retrieved:
    """What was found of each source.

    Attributes:
        found: by name, the network last.
        verdict: None without references.
        missing: references that are not here.
        images: among which was searched.
        left_out: a sentence about images that cannot be read; None without any.
        unreadable: paths and reasons of these.
    """

    found: dict[str, Retrieval]
    verdict: Verdict | None
    missing: list[Missing]
    images: int
    left_out: str | None
    unreadable: Mapping[str, str]


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    made = measure(args)
    _show(made, args)
    for one in made.missing:
        print(f"{one.name} (not measured): {one.reason}")
    return 0


def measure(args: argparse.Namespace) -> Retrieved:
    """Retrieval by the network and its references.

    Raises:
        UserError: images without what is asked for, or options that do not go together.
    """
    reading_options.refuse_processes(args, "retrieve")
    if probe_sources.is_features_folder(args):
        raise UserError(f"{args.checkpoint} holds features; give the network that made them")
    split, listing = _listing(args)
    kinds, apart = _kinds(listing, args)
    own = probe_sources.open_source(args)
    compared = list(probe_references.references(args, own)) if asked(args) else []
    missing = [one for one in compared if isinstance(one, Missing)]
    sources = [one for one in compared if not isinstance(one, Missing)] + [own]
    found: dict[str, Retrieval] = {}
    for source in sources:
        made = probe_sources.read_features(source, args, split, listing)
        place = {os.path.join(listing.root, file): i for i, file in enumerate(listing.files)}
        rows = np.array([place[whole_file(str(path))] for path in made.paths], np.int64)
        column = made.column(args.token if args.token in made.columns else None)
        vectors = torch.from_numpy(np.array(column, np.float32))
        groups = None if apart is None else apart[rows]
        with progress_bar(f"{source.name}: comparing", "images") as progress:
            found[source.name] = retrieve(
                vectors, kinds[rows], groups, args.device or "cpu", progress
            )
    # The network itself is the last.
    verdict = _verdict(found, own.name, len(rows))
    unread = made.unreadable
    return Retrieved(found, verdict, missing, len(rows), made.left_out(split), unread)


def _listing(args: argparse.Namespace) -> tuple[str, Listing]:
    data = probe_sources.data_name(args)
    for split in (args.split,) if args.split else ("val", "train"):
        try:
            listing = find_listing(data, args.data_dir, split)
            break
        except UserError:
            if args.split or split == "train":
                raise
    if args.labels:
        listing, _ = labelled(listing, args.labels)
    return split, listing


def _kinds(
    listing: Listing, args: argparse.Namespace
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """What counts as the same, and which images are no candidates for each other."""
    table = labelled(listing, args.labels)[1] if args.labels else None
    groups = None
    if args.group_by:
        keys = group_keys(listing, args.group_by, table)
        groups = np.unique(np.array(keys), return_inverse=True)[1].astype(np.int64)
    if args.by == "group":
        if groups is None:
            raise UserError("--by group needs --group-by, which says what the groups are")
        return groups, None
    if not listing.classes:
        raise UserError(
            f"the images of {listing.root} have no labels; put those of each class into a folder "
            "of its own, give --labels, or use --by group with --group-by"
        )
    return np.asarray(listing.targets, np.int64), groups


def _show(made: Retrieved, args: argparse.Namespace) -> None:
    console = Terminal()
    found, verdict = made.found, made.verdict
    queries = len(list(found.values())[-1].queries)
    table = Table(
        title=f"retrieval by {args.by}: {queries:,} queries among {made.images:,} images",
        title_justify="left", title_style="bold", box=None,
    )  # fmt: skip
    for name in ("", "recall@1", "recall@5", "mAP"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in found.items():
        values = (one.recall(1), one.recall(5), one.mean_precision())
        table.add_row(name, *(f"{100 * value:.1f} %" for value in values))
    console.print(table)
    for line in verdict.lines() if verdict else ():
        console.print(line, soft_wrap=True)
    if made.left_out:
        console.print(f"note: {made.left_out}", soft_wrap=True)
    if args.json:
        told: dict[str, Any] = {"results": {name: one.as_dict() for name, one in found.items()}}
        names = ("checkpoint", "data", "data_dir", "split", "by", "labels", "group_by", "token")
        told |= {"images": made.images, "unreadable": dict(made.unreadable)}
        told["settings"] = {name: getattr(args, name) for name in names}
        told |= {"verdict": verdict.as_dict()} if verdict else {}
        write_json(told, args.json)
        console.print(f"written: {args.json}", soft_wrap=True)


def _verdict(found: Mapping[str, Retrieval], own: str, images: int) -> Verdict | None:
    """By recall@1, over the queries that all sources share; None without references."""
    if len(found) < 2:
        return None
    correct = {name: one.first == 1 for name, one in found.items()}
    queries = found[own].queries
    if any(not np.array_equal(one.queries, queries) for one in found.values()):
        return None
    predictions = Predictions(np.zeros(len(queries), np.int64), correct)
    others = {name: compare(predictions, own, name, False) for name in found if name != own}
    tested = f"{len(queries):,} queries"
    outcome, text = sentence(others, "recall@1", images, tested)
    text = text.replace(f"from {images:,} labels, ", "")
    return Verdict(outcome, text, "recall@1", "retrieval", others, images, tested)
