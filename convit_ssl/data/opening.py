"""``open_dataset``: a data set by its name in the configuration."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path

from convit_ssl.data.images import ImageFiles, Transform, take
from convit_ssl.data.listing.annotations import labelled
from convit_ssl.data.listing.division import Division, DivisionSpec, divide, part_of
from convit_ssl.data.listing.folders import Listing, find_images
from convit_ssl.data.listing.lists import find_listed_images
from convit_ssl.data.listing.split_folders import check_split
from convit_ssl.data.listing.table_collections import find_table_images
from convit_ssl.data.loading.samples import FaultLog
from convit_ssl.data.reading.pixels import Reading
from convit_ssl.data.shards.tar import find_shards
from convit_ssl.data.sources.builtin import get_source, materialise
from convit_ssl.data.sources.registered import REGISTERED, registered_listing
from convit_ssl.errors import UserError
from convit_ssl.once import once

# Collections that are no folders of images.
LISTED: dict[str, Callable[[str | os.PathLike[str], str], Listing]] = {
    "list": find_listed_images,
    "shards": find_shards,
    "table": find_table_images,
}


def dataset_folder(data: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the images of ``data``; built-in sets are written at first use."""
    source = get_source(data)
    if source.built_in:
        return materialise(data, data_dir=data_dir)
    if data_dir is None or not str(data_dir):
        raise UserError(f"data={data} needs data_dir=/path, the folder that holds your images")
    return Path(data_dir)


def find_listing(
    data: str, data_dir: str | os.PathLike[str] | None = None, split: str = "train"
) -> Listing:
    """The images of a split, in folders, in a list or in shards; nothing of them is read.

    A command lists them once; see `convit_ssl.once`.

    Raises:
        UserError: unknown name, missing, empty or inconsistent collection.
    """
    place = None if data_dir is None else os.fspath(data_dir)
    return once(
        ("listing", data, place, split), lambda: _packed(_find_listing(data, place, split))
    )()


def _packed(listing: Listing) -> Callable[[], Listing]:
    """Makes the listing anew, from a third of its memory: a run keeps it while it trains."""
    if type(listing) is not Listing:
        return lambda: listing
    root, classes, targets = listing.root, listing.classes, array("q", listing.targets)
    table = listing.table
    names = "\0".join(listing.files).encode(errors="surrogateescape")

    def unpacked() -> Listing:
        files = names.decode(errors="surrogateescape").split("\0") if names else []
        return Listing(root, files, list(targets), list(classes), table)

    return unpacked


def _find_listing(data: str, data_dir: str | None, split: str) -> Listing:
    if data in REGISTERED:
        check_split(split)
        return registered_listing(data, data_dir, split)
    if data in LISTED:
        check_split(split)
        if data_dir is None or not str(data_dir):
            raise UserError(f"data={data} needs data_dir=, the folder or URL of the {data}")
        return LISTED[data](data_dir, split)
    return find_images(dataset_folder(data, data_dir), split)


def open_division(
    data: str, data_dir: str | os.PathLike[str] | None, spec: DivisionSpec
) -> Division:
    """The images of train, divided; a command divides them once (see `convit_ssl.once`).

    Raises:
        UserError: they cannot be divided; nothing of them is read.
    """
    place = None if data_dir is None else os.fspath(data_dir)
    key = ("division", data, place, spec)
    return once(key, lambda: divide(find_listing(data, data_dir, "train"), spec))


def divided_listing(
    data: str,
    data_dir: str | os.PathLike[str] | None,
    split: str,
    spec: DivisionSpec | None = None,
) -> Listing:
    """The images of a split: a folder's, or a part of those of train where they are divided.

    Raises:
        UserError: see `find_listing` and `divide`.
    """
    if spec is None or not spec:
        return find_listing(data, data_dir, split)
    if spec.divides:
        division = open_division(data, data_dir, spec)
        return part_of(division, split, spec.fold, spec.unlabelled)
    spec.check()
    listing = labelled(find_listing(data, data_dir, split), str(spec.labels))[0]
    if spec.unlabelled:
        return listing
    return take(listing, [row for row, target in enumerate(listing.targets) if target >= 0])


def open_dataset(
    data: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    transform: Transform | None = None,
    subset: str | None = None,
    *,
    seed: int = 0,
    max_corrupt: float = 0.01,
    replace: bool = True,
    fault_log: FaultLog | None = None,
    cache_bytes: int | None = None,
    reading: Reading | None = None,
    division: DivisionSpec | None = None,
) -> ImageFiles:
    """Open a data set.

    Args:
        data: a name in `SOURCES`.
        data_dir: the folder of the images, for imagenet and folder; of lists or shards, also a
            URL.
        split: train, val, or test where there is one.
        transform: called with each Pillow RGB image; see :class:`ImageFiles`.
        subset: a choice among the images, such as ``fraction=0.05,seed=0``; see
            :func:`convit_ssl.data.listing.subsets.parse_subset`.
        seed: of augmentation.
        max_corrupt: tolerated share of unreadable images.
        replace: put others in their place; see :class:`ImageFiles`.
        fault_log: where unreadable images are listed.
        cache_bytes: memory for decoded images; see :class:`ImageFiles`.
        reading: how files become 8-bit RGB; by default each image of more than 8 bits is scaled
            by itself.
        division: how the images of train are divided, where there is no val; and their labels.

    Raises:
        UserError: unknown name, missing, empty or inconsistent folder, impossible subset or
            division.
    """
    listing = divided_listing(data, data_dir, split, division)
    if subset:
        from convit_ssl.data.listing.subsets import choose

        listing = choose(listing, subset, split)
    return ImageFiles(
        listing,
        transform,
        seed=seed,
        max_corrupt=max_corrupt,
        replace=replace,
        fault_log=fault_log,
        cache_bytes=cache_bytes,
        reading=reading,
        subset=subset or None,
    )
