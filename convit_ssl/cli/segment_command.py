"""``convit-ssl segment``: how well frozen patch features tell apart what is where."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from convit_ssl.cli.options import division as division_options
from convit_ssl.cli.options import reading as reading_options
from convit_ssl.cli.options.values import natural, positive
from convit_ssl.cli.probe import references as probe_references
from convit_ssl.cli.probe import sources as probe_sources
from convit_ssl.cli.probe.references import Missing
from convit_ssl.cli.segment.images import Side, feature_maps, open_sides, read_masks
from convit_ssl.cli.segment.sources import MapSource, map_sources
from convit_ssl.data.listing.masks import Mask, mask_classes, numbered
from convit_ssl.errors import UserError
from convit_ssl.evaluation.dense.scores import SegmentationCounts, compare_miou, count_image
from convit_ssl.evaluation.dense.segmentation import (
    LinearPatches,
    NearestPatches,
    gather_patches,
    predict_mask,
)
from convit_ssl.evaluation.progress import progress_bar
from convit_ssl.evaluation.results import write_json
from convit_ssl.evaluation.verdict import Verdict, sentence
from convit_ssl.terminal import Terminal
from convit_ssl.writing import whole_file

SUMMARY = (
    "measure segmentation with frozen patch features, by nearest patches and by a linear "
    "classifier. Masks come from a folder; images may have any height and width"
)
EXAMPLE = (
    "convit-ssl segment runs/mine --data-dir /photos --masks /masks --holdout 0.2 --references"
)
PROBES = {"knn": NearestPatches, "linear": LinearPatches}
Found = dict[str, SegmentationCounts]
SETTINGS = (
    "checkpoint", "reference", "data", "data_dir", "masks", "ignore", "img_size", "longest",
    "holdout", "group_by", "split", "split_seed", "seed",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    probe_sources.add_arguments(parser)
    division_options.add_arguments(parser)
    add = parser.add_argument
    add(
        "--masks", required=True, metavar="DIR",
        help="folder of masks with the same paths and names as the images: class numbers as a "
        "grey, palette or 16-bit PNG or TIFF, or .npy",
    )  # fmt: skip
    add(
        "--ignore",
        type=natural,
        metavar="N",
        help="class number of pixels to ignore (default: 255)",
    )
    add(
        "--probe", nargs="+", choices=tuple(PROBES), default=list(PROBES),
        help="classify patches by the nearest ones, or by a linear layer (default: both)",
    )  # fmt: skip
    add(
        "--longest", type=positive, default=448, metavar="PIXELS",
        help="shrink images whose longer side exceeds this (default: 448); --img-size H,W "
        "resizes all images",
    )  # fmt: skip
    probe_references.add_arguments(parser)
    add(
        "--predictions",
        metavar="DIR",
        help="write predicted masks of the test images as PNG to this folder",
    )
    reading_options.add_json(parser)


@dataclass(frozen=True)
class Segmented:
    """What was found of each source.

    Attributes:
        results: by name and probe, the network last.
        verdicts: by probe; empty without references.
        missing: references that are not here.
        classes: numbers that masks hold.
        ignored: the number of pixels that belong to no class, where there are any.
        images: learned from, and tested on.
    """

    results: dict[str, Found]
    verdicts: dict[str, Verdict]
    missing: list[Missing]
    classes: list[int]
    ignored: int | None
    images: tuple[int, int]


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    found = measure(args)
    _show(found, args)
    for one in found.missing:
        print(f"{one.name} (not measured): {one.reason}")
    if found.ignored is not None:
        print(f"pixels of number {found.ignored} belong to no class and count nowhere")
    return 0


def measure(args: argparse.Namespace) -> Segmented:
    """Segmentation by the network and its references.

    Raises:
        UserError: nothing to test on, masks that do not fit, or a network without maps.
    """
    reading_options.refuse_processes(args, "segment")
    if args.mask or args.subset:
        raise UserError("--mask and --subset have no effect on segment; leave them out")
    sides = open_sides(args)
    with progress_bar("reading the masks", "masks") as progress:
        masks = read_masks(sides, progress)
        classes, ignored = mask_classes([*masks[0], *masks[1]], args.ignore)
        targets = [[numbered(mask, classes) for mask in part] for part in masks]
    sources, missing = map_sources(args)
    own = sources[-1]
    results = {
        source.name: _measure(source, source is own, sides, targets, classes, args)
        for source in sources
    }
    seen = ignored is not None and any((one == ignored).any() for part in masks for one in part)
    learned, tested = (len(side.listing.files) for side in sides)
    with progress_bar("comparing", "networks"):
        verdicts = _verdicts(results, own.name, sides[1], learned)
    return Segmented(
        results, verdicts, missing, list(classes), ignored if seen else None, (learned, tested)
    )


def _measure(
    source: MapSource,
    is_own: bool,
    sides: Sequence[Side],
    targets: Sequence[Sequence[Mask]],
    numbers: Sequence[int],
    args: argparse.Namespace,
) -> Found:
    """Counts by probe; predicted masks hold the class numbers that the masks have."""
    classes = len(numbers)
    network, patch = source.network, source.patch
    learned, tested = (
        probe_sources.open_images(args, side.name, source.as_source(), side.listing)
        for side in sides
    )
    maps, chosen = [], []
    with progress_bar(f"{source.name}: train", "images") as progress:
        for number, made in feature_maps(learned, network, patch, args.device, progress):
            maps.append(made)
            chosen.append(torch.from_numpy(targets[0][number]))
    with progress_bar(f"{source.name}: fitting", "probes"):
        patches = gather_patches(maps, chosen, classes, args.seed)
        del maps
        probes = {name: PROBES[name](patches, args.device or "cpu") for name in args.probe}
    none = (np.zeros((classes, classes), np.int64), np.zeros((2, classes), np.int64))
    # Images that cannot be read count nowhere, and keep their place.
    counts: dict[str, list[Any]] = {name: [none] * len(tested) for name in probes}
    with progress_bar(f"{source.name}: test", "images") as progress:
        for number, made in feature_maps(tested, network, patch, args.device, progress):
            truth = targets[1][number]
            for name, classifier in probes.items():
                said = predict_mask(classifier, made, (truth.shape[0], truth.shape[1])).numpy()
                counts[name][number] = count_image(truth, said, classes)
                if is_own and args.predictions and name == args.probe[-1]:
                    _write(
                        Path(args.predictions),
                        sides[1].listing.files[number],
                        np.asarray(numbers)[said],
                    )
    return {name: SegmentationCounts.of(found) for name, found in counts.items()}


def _write(folder: Path, file: str, said: Any) -> None:
    path = folder / Path(file.replace("#", "_")).with_suffix(".png")
    with whole_file(path) as partial:
        Image.fromarray(said.astype(np.uint8 if said.max() < 256 else np.uint16)).save(partial)


def _show(made: Segmented, args: argparse.Namespace) -> None:
    console = Terminal()
    results, classes = made.results, made.classes
    learned, tested = made.images
    table = Table(
        title=f"segmentation: {tested:,} images by {learned:,} others, {len(classes)} classes",
        title_justify="left", title_style="bold", box=None,
    )  # fmt: skip
    for name in ("", "probe", "mIoU", "boundary IoU", "pixels"):
        table.add_column(name, justify="left" if name in ("", "probe") else "right")
    for name, found in results.items():
        for probe, counts in found.items():
            values = (counts.miou(), counts.boundary_iou(), counts.pixel_accuracy())
            table.add_row(name, probe, *(f"{100 * value:.1f} %" for value in values))
    console.print(table)
    last = list(results.values())[-1][args.probe[-1]]
    shares = zip(classes, last.class_iou(), strict=True)
    text = " · ".join(f"{number}: {100 * value:.1f}" for number, value in shares)
    console.print(f"IoU by class ({args.probe[-1]}), %: {text}", soft_wrap=True)
    for probe, verdict in made.verdicts.items():
        for number, line in enumerate(verdict.lines()):
            console.print(f"{probe}: {line}" if number == 0 else line, soft_wrap=True)
    if args.json:
        write_json(
            {
                "results": {
                    name: {probe: counts.as_dict() for probe, counts in found.items()}
                    for name, found in results.items()
                },
                "verdicts": {probe: verdict.as_dict() for probe, verdict in made.verdicts.items()},
                "settings": {name: getattr(args, name) for name in SETTINGS},
                "classes": classes, "images": {"train": learned, "test": tested},
            },
            args.json,
        )  # fmt: skip
        console.print(f"written: {args.json}", soft_wrap=True)


def _verdicts(
    results: Mapping[str, Found], own: str, side: Side, learned: int
) -> dict[str, Verdict]:
    """By probe: better than each reference or not, by mIoU."""
    others = [name for name in results if name != own]
    verdicts: dict[str, Verdict] = {}
    for probe, counts in results[own].items() if others else ():
        found = {name: compare_miou(counts, results[name][probe], side.groups) for name in others}
        tested = f"{len(side.listing.files):,} images"
        outcome, text = sentence(found, "mIoU", learned, tested)
        text = text.replace(" labels,", " masks,")
        verdicts[probe] = Verdict(outcome, text, "mIoU", probe, found, learned, tested)
    return verdicts
