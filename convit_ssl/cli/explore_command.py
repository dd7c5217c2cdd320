"""``convit-ssl explore``: a collection as its features see it, on a page that opens offline."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl import __version__
from convit_ssl.analysis.explore import Exploration, Images, Near, explore, write_folder
from convit_ssl.analysis.explore.folder import TABLE, check_folder, common_root
from convit_ssl.analysis.explore.layout import LAYOUTS, check_layout
from convit_ssl.cli.options import reading as reading_options
from convit_ssl.cli.options import showing as showing_options
from convit_ssl.cli.options.values import natural
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.data.checks.collection import Opened, gather, open_parts
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.part_names import whole_file
from convit_ssl.data.listing.subsets import choose
from convit_ssl.data.reading.value_range import Range, Reading
from convit_ssl.data.reading.viewing import check_shown, view_image
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet, load_features
from convit_ssl.evaluation.features.tables import FeatureTable
from convit_ssl.evaluation.probes.neighbours import nearest_neighbours
from convit_ssl.evaluation.processes import rank, run_in_processes
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.machine import available_cores

SUMMARY = (
    "map a collection by its features: clusters, outliers, nearest neighbours, what to label "
    "next. Writes a folder with a page that works offline and a CSV file"
)
EXAMPLE = "convit-ssl explore random:convit_nano --data digits --out explore/digits"
_PARTS = ("train", "val", "test", "all")
_NEAREST = 15  # of the map and of outliers
_VOTERS = 20
_VOTERS_OF_GROUPS = 50  # of which those of one's own group do not vote


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    reading_options.add_labels(
        parser,
        ". Images without a row are unlabelled",
        ": shown on the map; images of the same group are not used to predict each other's labels",
    )
    reading_options.add_token(parser, "use")
    add = parser.add_argument
    add(
        "--layout",
        choices=LAYOUTS,
        default="auto",
        help="layout of the map (default: UMAP if installed, else PCA)",
    )
    add(
        "--thumbnail",
        type=natural,
        metavar="PIXELS",
        help="thumbnail side in pixels, up to 255; 0 for none",
    )
    showing_options.add_arguments(parser)
    add(
        "--scale-bar",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw a scale bar on thumbnails of images whose files give the size of a pixel",
    )
    add(
        "--out", default="explore", help="folder for index.html and explore.csv (default: explore/)"
    )
    add(
        "--to", nargs="+", choices=("csv", "parquet"), default=[],
        help="also write the features of all images as a table, with label and group",
    )  # fmt: skip


def run(args: Namespace) -> int:
    """Extract features or read them, arrange the images, write the folder."""
    out = Path(args.out)
    check_folder(out)
    check_layout(args.layout)
    showing_options.shown(args)
    if (args.thumbnail or 0) > 255:
        raise UserError(f"--thumbnail {args.thumbnail}: at most 255 pixels")
    made = _features(args)
    if made is None:  # rank 0 does the rest
        return 0
    sets, name, window = made
    if any(one.manifest.get("patches") for one in sets.values()):
        raise UserError(f"{name} holds maps of patch features; extract them without --tokens patch")
    images = _images(sets, args)
    features = np.concatenate([np.asarray(one.column(args.token)) for one in sets.values()])
    if len(features) < 2:
        raise UserError(
            "only one image was found; a map needs at least two, and is useful from about a hundred"
        )
    near, voters = _neighbours(features, images, args)
    with progress_bar("arranging", "steps") as report:
        steps: list[str] = []

        def say(step: str) -> None:
            steps.append(step)
            if report is not None:
                report(len(steps) - 1, 4, step)

        found = explore(features, images, near, voters, args.layout, args.seed, say)
    what = Path(os.path.realpath(args.data_dir)).name if args.data_dir else args.data or name
    facts = _facts(sets, args, name, window)
    unread: set[int] = set()
    load = None if args.thumbnail == 0 else _loader(images, args, unread, window)
    with progress_bar("thumbnails", "images") as progress:
        page = write_folder(
            out, found, images, load,
            f"{what}: {len(features):,} images", f"Features of {name}.", facts,
            side=args.thumbnail, workers=available_cores(), progress=progress,
        )  # fmt: skip
    if unread:
        print(
            f"warning: {len(unread):,} of {len(features):,} images could not be read for their "
            f"thumbnails; the first is {images.paths[min(unread)]}",
            file=sys.stderr,
        )
    print("\n".join(_summary(found, images)))
    written = [page, out / TABLE, *_tables(features, images, args, out)]
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _tables(
    features: np.ndarray[Any, Any], images: Images, args: Namespace, out: Path
) -> list[Path]:
    """The embeddings as ``--to`` asks for them."""
    classes = sorted({label for label in images.labels if label})
    number = {label: place for place, label in enumerate(classes)}
    targets = np.array([number.get(label, -1) for label in images.labels])
    column = {args.token or "features": (0, features.shape[1])}
    whole = FeatureSet(features, targets, images.paths, column, classes)
    groups = dict(zip(images.paths, images.groups, strict=True))
    table = FeatureTable(whole, {path: group for path, group in groups.items() if group})
    return [table.write(form, out) for form in dict.fromkeys(args.to)]


def _features(args: Namespace) -> tuple[dict[str, FeatureSet], str, Range | str | None] | None:
    """Features by part, what made them, and its window; None in a process that only helps."""
    if probe_sources.is_features_folder(args) or _one_part(args):
        folder = Path(args.checkpoint)
        found = {part: folder / part for part in _PARTS}
        found = {part: path for part, path in found.items() if (path / "manifest.json").is_file()}
        sets = {part: load_features(path) for part, path in (found or {"all": folder}).items()}
        _check_shown(next(iter(sets.values())).paths, args)
        return sets, str(folder), None
    made = run_in_processes(_extract, args.processes, args)
    if made is None:
        return None
    folders, name, window = made
    sets = {part: load_features(folder, verify=False) for part, folder in folders.items()}
    return sets, name, window


def _check_shown(paths: Sequence[str], args: Namespace) -> None:
    if args.show and args.thumbnail != 0:
        check_shown(paths, showing_options.shown(args) or ())


def _one_part(args: Namespace) -> bool:
    return (Path(args.checkpoint) / "features.npy").is_file()


def _extract(args: Namespace) -> tuple[dict[str, str], str, Range | str | None]:
    """Where the features of each part lie, and the window of images; runs in every process."""
    opened = _opened(args)
    # What is wrong with a table or with --show is said before all images are read.
    _annotate(opened, args)
    first = opened[0].listing
    _check_shown([os.path.join(first.root, file) for file in first.files[:5]], args)
    source = probe_sources.open_source(args)
    quiet = Namespace(**{**vars(args), "out": None})  # which is where `features` would write
    folders = {}
    for one in opened:
        made = probe_sources.read_features(source, quiet, one.part, one.listing)
        left_out = made.left_out(one.part)
        if left_out and rank() == 0:
            print(f"note: {left_out}", file=sys.stderr)
        folders[one.part] = str(made.folder)
    return folders, source.name, source.reading.window


def _opened(args: Namespace) -> list[Opened]:
    opened = open_parts(probe_sources.data_name(args), args.data_dir)
    if not args.subset:
        return opened
    learned = ("train", "all")
    return [
        Opened(one.part, choose(one.listing, args.subset)) if one.part in learned else one
        for one in opened
    ]


def _annotate(opened: list[Opened], args: Namespace) -> dict[str, tuple[str, str]]:
    """Label and group of each path."""
    labels, groups = _annotations(args)
    found = gather(opened, DivisionSpec(labels=labels, group_by=groups))
    both = zip(found.labels, found.groups, strict=True)
    return dict(zip(found.paths, both, strict=True))


def _annotations(args: Namespace) -> tuple[str | None, str | None]:
    """``--labels`` and ``--group-by``; what a run was trained with where neither is given."""
    if args.labels or args.group_by:
        return args.labels, args.group_by
    return getattr(args, "run_labels", None), getattr(args, "run_groups", None)


def _images(sets: dict[str, FeatureSet], args: Namespace) -> Images:
    """Paths, parts, labels and groups of the rows of all sets, one after the other."""
    paths = [str(path) for one in sets.values() for path in one.paths]
    parts = [part for part, one in sets.items() for _ in range(len(one))]
    if any(_annotations(args)):
        extracted = probe_sources.is_features_folder(args) or _one_part(args)
        opened = [Opened(part, _listing(one)) for part, one in sets.items()] if extracted else None
        known = _annotate(opened or _opened(args), args)
        names = (path if path in known else whole_file(path) for path in paths)
        labels, groups = zip(*(known[name] for name in names), strict=True)
    else:
        labels = tuple(
            (one.classes[target] if one.classes else str(target)) if target >= 0 else ""
            for one in sets.values()
            for target in one.targets
        )
        groups = ("",) * len(paths)
    return Images(paths, parts, labels, groups)


def _listing(features: FeatureSet) -> Listing:
    """The images of a set of features, in their order, as a folder would list them."""
    paths = [str(path) for path in features.paths]
    root = common_root(paths)
    files = [path[len(root) :] for path in paths]
    return Listing(root[:-1], files, features.targets.tolist(), list(features.classes))


def _neighbours(
    features: np.ndarray[Any, Any], images: Images, args: Namespace
) -> tuple[Near, Near | None]:
    """The nearest others of each image, and the nearest labelled ones where not all are."""
    labelled = np.array([bool(label) for label in images.labels])
    wanted = _VOTERS_OF_GROUPS if any(images.groups) else _VOTERS
    every = labelled.all()

    def nearest(k: int, rows: np.ndarray[Any, Any] | None) -> Near:
        count = len(features) if rows is None else len(rows)
        with progress_bar("neighbours", "images") as progress:
            found, similarities = nearest_neighbours(
                features, features, min(k + 1, count), train_rows=rows, device=args.device,
                progress=progress,
            )  # fmt: skip
        return without_self(found.numpy(), similarities.numpy())

    near = nearest(wanted if every else _NEAREST, None)
    if every or labelled.sum() < 2:
        return near, None
    return near, nearest(wanted, np.flatnonzero(labelled))


def without_self(rows: np.ndarray[Any, Any], similarities: np.ndarray[Any, Any]) -> Near:
    """One neighbour fewer: the image itself, or the last where it is not among them.

    It may be missing among its exact copies, or because it is not one of those compared with.
    """
    kept = rows != np.arange(len(rows))[:, None]
    kept[kept.all(axis=1), -1] = False
    shape = (len(rows), rows.shape[1] - 1)
    return Near(rows[kept].reshape(shape), similarities[kept].reshape(shape))


def _loader(
    images: Images, args: Namespace, unread: set[int], window: Range | str | None
) -> Callable[[int], Image.Image]:
    show = showing_options.shown(args)
    reading = Reading(window=window or "file")

    def load(row: int) -> Image.Image:
        try:
            return view_image(
                images.paths[row], reading=reading, side=args.thumbnail or 128, show=show,
                scale_bar=args.scale_bar, colour_map=args.colour_map,
            )  # fmt: skip
        except Exception:  # Pillow raises many kinds; the row is told of
            unread.add(row)
            raise

    return load


def _facts(
    sets: dict[str, FeatureSet], args: Namespace, name: str, window: Range | str | None
) -> dict[str, str]:
    first = next(iter(sets.values()))
    token = args.token or next(iter(first.columns))
    weights = str((first.manifest.get("fingerprint") or {}).get("weights", ""))
    command = shlex.join(["convit-ssl", "explore", *sys.argv[2:]])
    facts = {
        "features": f"{name}, {token}, {first.column(args.token).shape[1]} dimensions",
        "weights": weights[:16] or "not recorded",
        "images": ", ".join(f"{part} {len(one):,}" for part, one in sets.items()),
        "left out": ", ".join(
            f"{len(one.unreadable):,} unreadable of {part}"
            for part, one in sets.items()
            if one.unreadable
        ),
        "window": (
            f"{window[0]:g} is black, {window[1]:g} is white" if isinstance(window, tuple) else ""
        ),
        "command": command if sys.argv[1:2] == ["explore"] else "",
        "software": f"convit_ssl {__version__}",
    }
    return {key: text for key, text in facts.items() if text}


def _summary(found: Exploration, images: Images) -> list[str]:
    labelled = int((found.targets >= 0).sum())
    clusters = len(found.cluster_examples)
    lines = [
        f"{len(images.paths):,} images, {labelled:,} labelled; {found.layout} map; {clusters} "
        f"cluster{'s' * (clusters != 1)} by {found.clustered_by}"
    ]
    if found.accuracy is not None:
        others = " of other groups" if found.group_names else ""
        lines.append(
            f"the nearest images{others} have the right label for {100 * found.accuracy:.1f} % of "
            "the labelled images (weighted 20-NN, leave-one-out; to measure, use convit-ssl knn)"
        )
    if found.to_label:
        lines.append(f"label next: {len(found.to_label)} images, the first is "
                     f"{images.paths[found.to_label[0].row]}")  # fmt: skip
    if found.to_check:
        lines.append(f"labels to check: {len(found.to_check)}, the first is "
                     f"{images.paths[found.to_check[0].row]}")  # fmt: skip
    return lines
