"""Dividing images into parts to learn from and a part to test on, without a val folder.

A division is a function of the file names, labels, groups and seed alone: the same on every
machine and for any version of the libraries. It is stratified by class, never tears a group
apart, and can be written down as a table and read again.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.checksums import say_once
from convit_ssl.data.listing.annotations import Table, group_keys, labelled
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.parts import assign
from convit_ssl.data.listing.tables import read_table
from convit_ssl.errors import UserError
from convit_ssl.schema import DataOptions
from convit_ssl.sealed import changed_since, note_beside
from convit_ssl.writing import whole_file

TRAIN, TEST, UNUSED = -1, 0, -2  # parts; the folds of a k-fold are 0 .. k-1
FILE = "split.csv"
_NAMES = {TRAIN: "train", UNUSED: "unused"}
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class DivisionSpec:
    """How images are to be divided.

    Attributes:
        holdout: share of the images for the test; 0..1.
        folds: parts of a k-fold, each the test once.
        fold: which of them is the test in this run.
        group_by: ``folder:N``, ``column:NAME`` or ``name:REGEX``: what stays together.
        labels: ``table.csv:file,label,...``, ``folder:N`` or ``name:REGEX``; None for the class
            folders.
        file: a division that was written down; takes the place of `holdout`, `folds` and `seed`.
        seed: of the choice.
        unlabelled: keep images without a label to learn from, as pretraining may.
    """

    holdout: float | None = None
    folds: int | None = None
    fold: int = 0
    group_by: str | None = None
    labels: str | None = None
    file: str | None = None
    seed: int = 0
    unlabelled: bool = False

    @classmethod
    def of(cls, data: DataOptions, unlabelled: bool = False) -> DivisionSpec:
        """From the options of an experiment's `data`, which may be of an earlier version."""

        def given(name: str) -> Any:
            return data.get(name) if hasattr(data, "get") else getattr(data, name, None)

        return cls(
            holdout=given("holdout"),
            folds=given("folds"),
            fold=given("fold") or 0,
            group_by=given("group_by"),
            labels=given("labels"),
            file=given("split"),
            seed=given("split_seed") or 0,
            unlabelled=unlabelled,
        )

    @property
    def divides(self) -> bool:
        """Whether there will be a test part; labels alone make none."""
        return self.holdout is not None or self.folds is not None or self.file is not None

    def __bool__(self) -> bool:
        return self.divides or self.labels is not None or self.group_by is not None

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: with what to write instead.
        """
        given = [
            name
            for name, value in (
                ("holdout", self.holdout), ("folds", self.folds), ("split", self.file)
            )
            if value is not None
        ]  # fmt: skip
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} were given; use only one of them")
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise UserError(
                f"holdout={self.holdout:g}: give a fraction between 0 and 1, such as 0.2"
            )
        if self.folds is not None and self.folds < 2:
            raise UserError(f"folds={self.folds}: give at least 2, usually 5")
        if self.folds is None and self.fold < 0:
            raise UserError(f"fold={self.fold}: give 0 or more, together with folds=5")
        if self.folds is not None and not 0 <= self.fold < self.folds:
            raise UserError(f"fold={self.fold}: with folds={self.folds} it is 0..{self.folds - 1}")
        if self.group_by is not None and not self.divides:
            raise UserError(
                f"group_by={self.group_by} only has an effect together with holdout=0.2 or folds=5"
            )


@dataclass(frozen=True)
class Division:
    """Images and the part each belongs to.

    Attributes:
        listing: all images, with the labels they are divided by.
        parts: (N,) `TRAIN`, `TEST` or a fold's number; `UNUSED` for images without a label.
        groups: (N,) number of each image's group; -1 where nothing was asked to stay together.
        group_names: of the groups.
        folds: parts that are a test in turn; 1 for a hold-out.
        notes: what a reader of a result should know.
    """

    listing: Listing
    parts: Ints
    groups: Ints
    group_names: Sequence[str]
    folds: int
    notes: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether groups were asked for."""
        return bool(self.group_names)

    def test_rows(self, fold: int = 0) -> Ints:
        """Positions of the images that a fold is tested on."""
        return np.flatnonzero(self.parts == fold)

    def train_rows(self, fold: int = 0) -> Ints:
        """Positions of the images to learn from, whatever is chosen included."""
        return np.flatnonzero((self.parts != fold) & (self.parts != UNUSED))

    def unlabelled_rows(self) -> Ints:
        """Positions of images that have no label, and so no part in a test."""
        return np.flatnonzero(self.parts == UNUSED)

    def used(self) -> Division:
        """The same without images that have no part."""
        rows = np.flatnonzero(self.parts != UNUSED)
        listing = self.listing
        kept = replace(
            listing,
            files=[listing.files[int(row)] for row in rows],
            targets=[listing.targets[int(row)] for row in rows],
        )
        return replace(self, listing=kept, parts=self.parts[rows], groups=self.groups[rows])

    def digest(self) -> str:
        """SHA-256 (16 hexadecimal digits) of which image is in which part."""
        lines = sorted(
            f"{file}\t{part}\n" for file, part in zip(self.listing.files, self.parts, strict=True)
        )
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def describe(self) -> str:
        """In words: parts, images, groups."""
        classes = f", {len(self.listing.classes)} classes" if self.listing.classes else ""
        groups = f" in {len(self.group_names)} groups" if self.grouped else ""
        if self.folds > 1:
            used = int((self.parts >= 0).sum())
            return f"{self.folds} folds of {used:,} images{groups}{classes}"
        test, train = len(self.test_rows()), len(self.train_rows())
        return f"{train:,} images to learn from, {test:,} to test{groups}{classes}"

    def write(self, path: str | Path) -> None:
        """Write ``file,part,label,group``, a row an image; `DivisionSpec.file` reads it.

        Raises:
            UserError: the file cannot be written.
        """
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("file", "part", "label", "group"))
        classes = self.listing.classes
        for file, part, target, group in zip(
            self.listing.files, self.parts, self.listing.targets, self.groups, strict=True
        ):
            name = _NAMES.get(int(part), "test" if self.folds == 1 else str(int(part)))
            label = classes[target] if classes and target >= 0 else ""
            rows.writerow((file, name, label, self.group_names[group] if group >= 0 else ""))
        try:
            with whole_file(path) as partial:
                partial.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
            note_beside(Path(path))
        except OSError as error:
            raise UserError(f"cannot write the split {path}: {error.strerror}") from error


def divide(listing: Listing, spec: DivisionSpec) -> Division:
    """Divide the images of a listing.

    Raises:
        UserError: labels or groups that cannot be read, or too few of them to be divided: the
            message says which.
    """
    spec.check()
    table: Table | None = None
    if spec.labels is not None:
        listing, table = labelled(listing, spec.labels)
    if spec.file is not None:
        return _read(listing, spec)
    keys = group_keys(listing, spec.group_by, table) if spec.group_by else []
    targets = np.asarray(listing.targets, dtype=np.int64)
    usable = targets >= 0 if listing.classes else np.ones(len(targets), bool)
    names = sorted({key for key, use in zip(keys, usable, strict=True) if use}) if keys else []
    number = {name: position for position, name in enumerate(names)}
    groups = np.array([number.get(key, -1) for key in keys] or [-1] * len(targets), np.int64)
    shares = (
        [1 / spec.folds] * spec.folds
        if spec.folds is not None
        else [float(spec.holdout or 0), 1 - float(spec.holdout or 0)]
    )
    rows = np.flatnonzero(usable)
    _check(listing, spec, targets[rows], groups[rows], len(shares))
    files = [listing.files[int(row)] for row in rows]
    holdout = spec.folds is None
    chosen, notes = assign(files, targets[rows], groups[rows], names, shares, spec.seed, holdout)
    if holdout:
        chosen = np.where(chosen == 1, TRAIN, chosen)
    if not (chosen == 0).any():
        raise UserError(
            f"with group_by={spec.group_by} every group of {listing.root} is the only one of some "
            "class, so none can be held out; use coarser classes or smaller groups"
        )
    parts = np.full(len(targets), UNUSED, np.int64)
    parts[rows] = chosen
    notes += _bare_notes(listing, targets)
    named = tuple(_class_names(note, listing.classes) for note in notes)
    return Division(listing, parts, groups, names, spec.folds or 1, named)


def _bare_notes(listing: Listing, targets: Ints) -> list[str]:
    bare = int((targets < 0).sum())
    if not listing.classes or not bare:
        return []
    return [f"{bare:,} of {len(targets):,} images are unlabelled and not used for testing"]


def _class_names(note: str, classes: Sequence[str]) -> str:
    """Numbers of classes, written {7}, as their names."""
    for position, name in enumerate(classes):
        note = note.replace(f"{{{position}}}", name)
    return note


def _check(listing: Listing, spec: DivisionSpec, targets: Ints, groups: Ints, parts: int) -> None:
    """Say what is missing where nothing can be divided.

    Raises:
        UserError: nothing to divide by.
    """
    where = f"{listing.root} ({len(targets):,} images"
    where += f", {len(listing.classes)} classes)" if listing.classes else ", no labels)"
    if groups.size and groups[0] >= 0:
        found = len(np.unique(groups))
        if found < parts:
            raise UserError(
                f"group_by={spec.group_by} finds {found} group{'s' * (found > 1)} in {where}, and "
                f"{parts} are needed: nothing can be held out without splitting a group"
            )
        if listing.classes and _groups_are_classes(targets, groups):
            raise UserError(
                f"with group_by={spec.group_by} each class of {where} lies in one group, so a "
                "group that is held out takes its class with it. If these folders are patients "
                "or series, say where the labels are: --labels table.csv:file,label, "
                "--labels folder:2 or --labels name:REGEX"
            )
    elif listing.classes:
        counts = np.bincount(targets)
        most = int(counts.max(initial=0))
        if most < parts:
            raise UserError(
                f"no class of {where} has {parts} images, so none can be held out for a test; "
                "label more images, or give fewer folds"
            )
    elif len(targets) < parts:
        raise UserError(f"{where}: fewer images than the {parts} parts requested")


def _groups_are_classes(targets: Ints, groups: Ints) -> bool:
    return all(len(np.unique(groups[targets == label])) == 1 for label in np.unique(targets))


def _read(listing: Listing, spec: DivisionSpec) -> Division:
    """A division that was written down, or that somebody else wrote: file,part[,group]."""
    path = str(spec.file)
    if changed := changed_since(Path(path)):
        say_once(f"note: {changed}")
    header = read_table(path)
    if not {"file", "part"} <= header.keys():
        raise UserError(
            f"the split {path} has the columns {some(list(header))}; it needs file and part "
            "(train, test, or the number of a fold), and may have group and label"
        )
    listing = _with_labels(listing, spec, header)
    place = {file: position for position, file in enumerate(listing.files)}
    parts = np.full(len(listing.files), UNUSED, np.int64)
    names = sorted({name for name in header.get("group", []) if name})
    number = {name: position for position, name in enumerate(names)}
    groups = np.full(len(listing.files), -1, np.int64)
    gone = [file for file in header["file"] if file not in place]
    if gone:
        raise UserError(
            f"{len(gone):,} of {len(header['file']):,} images of the split {path} are not in "
            f"{listing.root}: {some(gone, 3)}"
        )
    first: dict[str, int] = {}
    for row, (file, part) in enumerate(zip(header["file"], header["part"], strict=True)):
        before = first.setdefault(file, row)
        if any(cells[row] != cells[before] for cells in header.values()):
            raise UserError(
                f"the split {path} has two different rows for {file}: rows {before + 2} and "
                f"{row + 2}"
            )
        parts[place[file]] = _part(part, path, row + 2)
        if names and header["group"][row]:
            groups[place[file]] = number[header["group"][row]]
    folds = int(parts.max(initial=TRAIN)) + 1
    if folds < 1 or not (parts == 0).any():
        raise UserError(f"the split {path} has no test part")
    if folds == 1 and not (parts == TRAIN).any():
        raise UserError(f"the split {path} has only a test part and nothing to train on")
    left = int((parts == UNUSED).sum())
    notes = (f"{left:,} images are not in the split and are ignored",) if left else ()
    return Division(listing, parts, groups, names, folds, notes)


def _with_labels(listing: Listing, spec: DivisionSpec, header: dict[str, list[str]]) -> Listing:
    """The labels that were written down with the parts, unless others are given."""
    if spec.labels is not None or "label" not in header or not any(header["label"]):
        return listing
    return labelled(listing, f"{spec.file}:file,label")[0]


def _part(text: str, path: str, row: int) -> int:
    known = {"train": TRAIN, "test": TEST, "val": TRAIN, "unused": UNUSED, "": UNUSED}
    if text.lower() in known:
        return known[text.lower()]
    if text.isdecimal() and int(text) < 1000:
        return int(text)
    raise UserError(f"row {row} of the split {path} has the part {text!r}: train, test or a number")


def part_of(division: Division, split: str, fold: int = 0, unlabelled: bool = False) -> Listing:
    """The listing of one side: train (images to learn from) or val (those of the test)."""
    rows = division.test_rows(fold) if split == "val" else division.train_rows(fold)
    if unlabelled and split != "val":
        rows = np.sort(np.concatenate([rows, division.unlabelled_rows()]))
    listing = division.listing
    return replace(
        listing,
        files=[listing.files[int(row)] for row in rows],
        targets=[listing.targets[int(row)] for row in rows],
    )
