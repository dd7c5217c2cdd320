"""``convit-ssl check``: duplicates, leaks between parts, and bad images of a collection."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from convit_ssl.analysis.collection_page import Card, CountTable, Section, write_collection_page
from convit_ssl.analysis.page import write_text
from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.options import weights as weights_options
from convit_ssl.data.checks.collection import (
    ALIKE,
    COLUMNS,
    KINDS,
    SERIOUS,
    Collection,
    Finding,
    about_look_alikes,
    counted,
    findings,
    gather,
    open_parts,
)
from convit_ssl.data.checks.duplicates import Pair, duplicates_in_features, find_duplicates
from convit_ssl.data.checks.quality import inspect_all
from convit_ssl.data.reading.viewing import view_image
from convit_ssl.data.sources.builtin import SOURCES
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.sealed import note_beside

SUMMARY = (
    "find duplicates, leaks between train and test, and bad images. Exit code: 0 if nothing was "
    "found, 1 if something was, 2 if the collection cannot be read"
)
EXAMPLE = "convit-ssl check digits --out checks/digits"
LOOK_ALIKES_SHOWN = 12  # pairs on the page; more of the same help nobody
WORDS = {
    "leak": (
        "Leaks",
        "One picture seems to be in two parts. If it is, test results cannot be trusted.",
    ),
    "labels differ": (
        "Two labels",
        "One picture seems to have two labels. If it has, one of them is wrong.",
    ),
    "across groups": ("Across groups", "One picture seems to be in two groups."),
    "truncated": ("Truncated", "The file ends before the image does."),
    "unreadable": ("Unreadable", "The file cannot be read as an image."),
    "black": ("Black", "Nothing is visible."),
    "blank": ("Blank", "All pixels have the same value."),
    "odd": ("Depth or size", "These images are stored in another depth or size than the rest."),
    "duplicate": (
        "Copies in one part",
        "One picture twice, as it seems, with one label and in one part. It does not affect tests, "
        "but counts twice in training. It does not change the exit code.",
    ),
    "look-alike": (
        "Look-alikes",
        "Two images that differ in detail: similar things, or one scene twice. Where all images "
        "are alike by nature, this is normal. It does not change the exit code.",
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("data", metavar="DATA", help="a folder of images, or the name of a built-in data set")
    add(
        "--format",
        choices=("list", "shards", "table"),
        help="what DATA is, if not a folder",
    )
    division_options.add_arguments(parser)
    add("--trunk", metavar="CKPT", help="also compare images by the features of this network")
    weights_options.add_arguments(parser)
    add("--out", default="check", help="folder for check.html and check.csv (default: check/)")
    kinds = ", ".join(f"'{kind}'" if " " in kind else kind for kind in SERIOUS)
    add(
        "--ignore",
        nargs="+",
        default=[],
        choices=SERIOUS,
        metavar="KIND",
        help=f"findings to accept: {kinds}",
    )


@dataclass(frozen=True)
class Checked:
    """What was found in a collection.

    Attributes:
        collection: its images.
        found: without the kinds that are accepted.
        lines: the summary.
        page, table: what was written.
    """

    collection: Collection
    found: list[Finding]
    lines: list[str]
    page: Path
    table: Path

    @property
    def is_clean(self) -> bool:
        """Whether nothing serious was found."""
        return not any(one.kind in SERIOUS for one in self.found)

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(Counter(one.kind for one in self.found))

    def rows(self) -> list[dict[str, str]]:
        """The rows of check.csv."""
        return [dict(zip(COLUMNS, row, strict=True)) for row in _rows(self.collection, self.found)]


def run(args: argparse.Namespace) -> int:
    """Look, write the page and the table, and say what was found."""
    made = look(args)
    print("\n".join(made.lines))
    print(f"written: {made.page}, {made.table}")
    return 0 if made.is_clean else 1


def look(args: argparse.Namespace) -> Checked:
    """Find duplicates and bad images; write the page and the table.

    Raises:
        UserError: the collection cannot be read.
    """
    if not args.trunk:
        weights_options.refuse(args, "--trunk CKPT")
    built_in = args.data in SOURCES and not Path(args.data).is_dir()
    name = args.format or (args.data if built_in else "folder")
    spec = division_options.spec_of(args)
    collection = gather(open_parts(name, None if built_in else args.data), spec)
    with progress_bar("reading", "images") as progress:
        facts = inspect_all(collection.paths, progress=progress)

    def load(position: int) -> Image.Image:
        return view_image(collection.paths[position])

    with progress_bar("comparing", "pairs") as progress:
        pairs = find_duplicates(facts, load, progress)
    if args.trunk:
        pairs += _alike_in_features(args, collection, pairs)
    found = [one for one in findings(collection, facts, pairs) if one.kind not in args.ignore]
    out = Path(args.out)
    made = Checked(
        collection, found, _summary(collection, found), out / "check.html", out / "check.csv"
    )
    _write_csv(made)
    write_collection_page(
        made.page,
        f"Check of {args.data}",
        made.lines,
        made.is_clean,
        _tables(collection),
        [_section(kind, collection, found) for kind in KINDS],
        lambda position: None if not facts[position].size[0] else load(position),
    )
    return made


def _alike_in_features(
    args: argparse.Namespace, collection: Collection, known: list[Pair]
) -> list[Pair]:
    """Pairs that a network takes for the same; see `duplicates_in_features`."""
    import numpy as np
    import torch

    from convit_ssl.cli.probe.sources import source_of
    from convit_ssl.data.loading.samples import SampleReader, UnreadableImageError

    model = weights_options.read_network(args, args.trunk, num_classes=0)
    plain = argparse.Namespace(mask=None)
    source = source_of(model, args.trunk, getattr(model, "provenance", {}), plain)
    reader = SampleReader(collection.paths, max_corrupt=1.0, reading=source.reading)
    read: Any = reader.channels if source.reading.native else reader.image
    features = np.full((len(collection.paths), model.config.embed_dim), np.nan, np.float32)
    with progress_bar("features", "images") as progress, torch.inference_mode():
        for first in range(0, len(collection.paths), 32):
            rows, images = [], []
            for row in range(first, min(first + 32, len(collection.paths))):
                try:
                    images.append(source.transform(read(collection.paths[row])))
                except UnreadableImageError:  # it is among the unreadable ones
                    continue
                rows.append(row)
            if rows:
                features[rows] = model(torch.stack(images)).float().numpy()
            if progress is not None:
                progress(first + 32, len(collection.paths))
    return duplicates_in_features(features, known)


def _summary(collection: Collection, found: Sequence[Finding]) -> list[str]:
    counts = Counter(one.kind for one in found)
    parts = Counter(collection.parts)
    told = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    lines = [", ".join(counted(kind, counts[kind]) for kind in KINDS if counts[kind])]
    lines[0] = f"found: {lines[0]}" if lines[0] else "nothing found"
    lines.append(f"{len(collection.paths):,} images" + (f" ({told})" if len(parts) > 1 else ""))
    alike = about_look_alikes(collection, found)
    return [*lines, *([alike] if alike else []), *collection.notes]


def _section(kind: str, collection: Collection, found: Sequence[Finding]) -> Section:
    title, text = WORDS[kind]
    cards = []
    those = [one for one in found if one.kind == kind]
    shown = those[:LOOK_ALIKES_SHOWN] if kind == ALIKE else those
    if len(shown) < len(those):
        text += f" Here are {len(shown)} of {len(those):,} pairs; all of them are in check.csv."
    for one in shown:
        images = [one.image] if one.other is None else [one.image, one.other]
        captions = [_caption(collection, position) for position in images]
        cards.append(Card(images, [*captions, one.detail]))
    return Section(title, text, cards)


def _caption(collection: Collection, position: int) -> str:
    about = [collection.parts[position], collection.labels[position], collection.groups[position]]
    told = ", ".join(text for text in about if text)
    return f"{collection.files[position]} ({told})" if told else collection.files[position]


def _tables(collection: Collection) -> list[CountTable]:
    parts = list(dict.fromkeys(collection.parts))
    tables = []
    for title, names in (("Classes", collection.labels), ("Groups", collection.groups)):
        counts = Counter(zip(names, collection.parts, strict=True))
        rows: list[list[str | int]] = [
            [name or "none", *(counts[name, part] for part in parts)] for name in sorted(set(names))
        ]
        if any(names):
            header = "class" if title == "Classes" else "group"
            tables.append(CountTable(title, [header, *parts], rows))
    return tables


def _rows(collection: Collection, found: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    columns = (collection.files, collection.parts, collection.labels, collection.groups)
    for one in found:
        own = [str(column[one.image]) for column in columns]
        other = [""] * len(columns)
        if one.other is not None:
            other = [str(column[one.other]) for column in columns]
        yield (one.kind, *own, *other, one.detail)


def _write_csv(made: Checked) -> None:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_rows(made.collection, made.found))
    write_text(made.table, text.getvalue())
    note_beside(made.table)
