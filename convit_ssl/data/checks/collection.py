"""All images of a collection with their parts, labels and groups; and what is wrong with them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convit_ssl.data.checks.duplicates import Pair
from convit_ssl.data.checks.quality import ImageFacts, odd_ones
from convit_ssl.data.listing.annotations import group_keys, labelled
from convit_ssl.data.listing.division import UNUSED, DivisionSpec, divide
from convit_ssl.data.listing.folders import Listing, check_folder, list_images
from convit_ssl.data.listing.split_folders import find_splits
from convit_ssl.data.opening import LISTED, dataset_folder, find_listing
from convit_ssl.errors import UserError

PARTS = ("train", "val", "test")
LEAK, LABELS, GROUPS, COPY = "leak", "labels differ", "across groups", "duplicate"
ALIKE = "look-alike"
# Findings that leave a script with exit code 1; plain copies and look-alikes are told, no more.
SERIOUS = (LEAK, LABELS, GROUPS, "truncated", "unreadable", "black", "blank", "odd")
KINDS = (*SERIOUS, COPY, ALIKE)
_ABOUT = ("file", "part", "label", "group")
COLUMNS = ("kind", *_ABOUT, *(f"other_{name}" for name in _ABOUT), "detail")  # of check.csv
_COUNTED = {
    LEAK: "pairs across parts",
    LABELS: "pairs with two labels",
    GROUPS: "pairs across groups",
    "odd": "of another depth or size",
    COPY: "copies within a part",
    ALIKE: "pairs that look alike",
}


def counted(kind: str, count: int) -> str:
    """A number of findings of a kind in words, such as ``3 pairs across parts``."""
    words = _COUNTED.get(kind, kind)
    if count == 1:
        words = words.replace("pairs that look", "pair that looks")
        words = words.replace("pairs", "pair").replace("copies", "copy")
    return f"{count:,} {words}"


@dataclass(frozen=True)
class Collection:
    """The images of all parts, in one order.

    Attributes:
        paths: full paths.
        files: relative paths, with the part's folder in front.
        parts: train, val, test, or a fold.
        labels: names of classes; "" without a label.
        groups: names; "" without one.
        notes: of the division.
    """

    paths: list[str]
    files: list[str]
    parts: list[str]
    labels: list[str]
    groups: list[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something wrong with one image or with a pair.

    Attributes:
        kind: one of `KINDS`.
        image: position.
        other: position of the other image of a pair, or None.
        detail: in words.
    """

    kind: str
    image: int
    other: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Opened:
    """A listing and the part that its images are in."""

    part: str
    listing: Listing


def open_parts(data: str, data_dir: str | None = None) -> list[Opened]:
    """The images of every part that a collection has: train, val and test, or all in one.

    Raises:
        UserError: there are none.
    """
    if data in LISTED:
        opened = [Opened("train", find_listing(data, data_dir, "train"))]
        if not str(data_dir).endswith((".txt", ".tar")):
            with contextlib.suppress(UserError):
                opened.append(Opened("val", find_listing(data, data_dir, "val")))
        return opened
    folder = check_folder(dataset_folder(data, data_dir))
    splits = find_splits(folder)
    # Where there is no val, test stands for it.
    parts = {splits[name]: name for name in PARTS if name in splits}
    if not parts:
        return [Opened("all", list_images(folder))]
    return [Opened(part, list_images(folder / name)) for name, part in parts.items()]


def gather(opened: Sequence[Opened], spec: DivisionSpec) -> Collection:
    """One table of the images of several parts, or of one listing that is divided.

    Raises:
        UserError: labels or groups that cannot be read, or parts that are there already.
    """
    if spec.divides and len(opened) > 1:
        raise UserError(
            f"this collection is already split ({', '.join(one.part for one in opened)}), so "
            f"leave out --holdout, --folds and --split"
        )
    whole = Collection([], [], [], [], [])
    notes: tuple[str, ...] = ()
    for one in opened:
        listing, groups, parts = one.listing, [], [one.part] * len(one.listing.files)
        if spec.divides:
            division = divide(listing, spec)
            listing, notes = division.listing, division.notes
            names = [*division.group_names, ""]
            groups = [names[number] for number in division.groups]
            parts = [_part(int(number), division.folds) for number in division.parts]
        else:
            table = None
            if spec.labels:
                listing, table = labelled(listing, spec.labels)
            if spec.group_by:
                groups = group_keys(listing, spec.group_by, table)
        prefix = f"{one.part}/" if len(opened) > 1 else ""
        root = str(listing.root).rstrip("/")
        whole.paths.extend(f"{root}/{file}" for file in listing.files)
        whole.files.extend(prefix + file for file in listing.files)
        whole.parts.extend(parts)
        whole.labels.extend(listing.classes[t] if t >= 0 else "" for t in listing.targets)
        whole.groups.extend(groups or [""] * len(listing.files))
    return replace(whole, notes=notes)


def _part(number: int, folds: int) -> str:
    if number == UNUSED:
        return "unused"
    if folds > 1:
        return f"fold {number}" if number >= 0 else "train"
    return "test" if number == 0 else "train"


def findings(
    collection: Collection, facts: Sequence[ImageFacts], pairs: Sequence[Pair]
) -> list[Finding]:
    """What is wrong, the gravest kinds first."""
    found = [
        Finding(_kind(collection, pair), pair.first, pair.second, _how(pair)) for pair in pairs
    ]
    found += [
        Finding(one.problem, position, detail=one.reason)
        for position, one in enumerate(facts)
        if one.problem
    ]
    found += [Finding("odd", position, detail=text) for position, text in odd_ones(facts).items()]
    return sorted(found, key=lambda one: (KINDS.index(one.kind), one.image, one.other or 0))


def _kind(collection: Collection, pair: Pair) -> str:
    if pair.kind == "alike":
        return ALIKE
    if _differ(collection.labels, pair.first, pair.second):
        return LABELS
    if _differ(collection.parts, pair.first, pair.second):
        return LEAK
    return GROUPS if _differ(collection.groups, pair.first, pair.second) else COPY


def _differ(values: Sequence[str], first: int, second: int) -> bool:
    return bool(values[first]) and bool(values[second]) and values[first] != values[second]


def about_look_alikes(collection: Collection, found: Sequence[Finding]) -> str:
    """What look-alikes mean, or "" where there are none."""
    pairs = [(one.image, one.other) for one in found if one.kind == ALIKE and one.other is not None]
    if not pairs:
        return ""
    told = []
    for values, words in (
        (collection.parts, "across parts"),
        (collection.labels, "with two labels"),
    ):
        count = sum(_differ(values, *pair) for pair in pairs)
        told += [f"{count:,} {words}"] if count else []
    images = len({image for pair in pairs for image in pair})
    counted_pairs = ", ".join(["1 pair" if len(pairs) == 1 else f"{len(pairs):,} pairs", *told])
    return (
        f"{images:,} of {len(collection.paths):,} images resemble another one but differ in detail "
        f"({counted_pairs}). Images of similar things need nothing done; several of one scene, "
        "sample or recording belong in one part: --group-by keeps them together"
    )


def _how(pair: Pair) -> str:
    return {
        "exact": "the same bytes",
        "thumbnail": f"the same picture, saved another way (correlation {pair.likeness:.3f})",
        "keypoints": "the same picture, cropped or resized a little "
        f"({100 * pair.likeness:.0f} % of the keypoints match)",
        "alike": f"alike, but not in detail (correlation {pair.likeness:.3f} once aligned)",
        "features": f"nearly the same features (cosine similarity {pair.likeness:.3f})",
    }[pair.kind]
