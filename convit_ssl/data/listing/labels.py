"""Labels as they are written in lists and shards, to numbers and names of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from convit_ssl.data.listing.names import some
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError

MOST_CLASSES = 1_000_000
UNLABELLED = "-1"  # as a label: this image has none
_NEGATIVE = re.compile(r"-\d+")


def class_table(labels: Iterable[str], where: str = "the collection") -> list[str]:
    """Names of the classes, whose positions are their numbers; empty without labels.

    Whole numbers are sorted as numbers, anything else as names. Only those that occur are
    classes; -1 is none, but says that an image has no label.

    Args:
        labels: of all images of all splits.
        where: the collection, for messages.

    Raises:
        UserError: a number that cannot be one of a class.
    """
    names = {_plain(label) for label in labels} - {UNLABELLED}
    negative = sorted(name for name in names if _NEGATIVE.fullmatch(name))
    if not names or not all(name.isdecimal() or name in negative for name in names):
        return sorted(names)
    if negative:
        raise UserError(
            f"labels must be numbers from 0, or -1 for an unlabelled image; found {some(negative)} "
            f"in {where}"
        )
    numbers = sorted(int(name) for name in names)
    if numbers[-1] >= MOST_CLASSES:
        raise UserError(f"found label {numbers[-1]}; classes are numbered from 0")
    if numbers[-1] != len(numbers) - 1:
        note_once(
            f"labels in {where} are not 0 to {len(numbers) - 1}: there are {len(numbers)} classes, "
            f"{numbers[0]} to {numbers[-1]}, numbered in their order"
        )
    return [str(number) for number in numbers]


def check_known(train: Iterable[str | None], val: Iterable[str | None], where: str) -> None:
    """Refuse classes that nothing can be learned of.

    Args:
        train: labels of its images, None without one.
        val: the same; nothing is asked where one of the two has no labels.
        where: the collection.

    Raises:
        UserError: val has classes that train lacks.
    """
    known = {_plain(label) for label in train if label is not None} - {UNLABELLED}
    asked = {_plain(label) for label in val if label is not None} - {UNLABELLED}
    unknown = sorted(asked - known)
    if known and unknown:
        raise UserError(
            f"val has classes that train lacks, in {where}: {some(unknown)}. "
            "Label both in the same words or numbers, or leave those images out"
        )


def say_absent(targets: Sequence[int], classes: Sequence[str], split: str, where: str) -> None:
    """Say which classes of train another split has no images of.

    Args:
        targets: of the images of that split, -1 without a label.
        classes: of train.
        split: val or test.
        where: the split, for the message.
    """
    present = set(targets)
    absent = [name for number, name in enumerate(classes) if number not in present]
    if absent:
        note_once(
            f"{split} has no images of {len(absent)} of {len(classes)} classes ({some(absent)}): "
            f"{where}. Training does not need them; results are computed over the other classes"
        )


def _plain(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label  # "007" is 7


def targets_of(labels: Sequence[str | None], classes: Sequence[str], where: str) -> list[int]:
    """The class number of each label, -1 for an image without one.

    Args:
        labels: of the images, all with one or all without; -1 is the label of an image without.
        classes: of `class_table`.
        where: the list or the shards, for the message.

    Raises:
        UserError: some images have a label and others nothing in its place.
    """
    number = {name: position for position, name in enumerate(classes)} | {UNLABELLED: -1}
    bare = [position for position, label in enumerate(labels) if label is None]
    if 0 < len(bare) < len(labels):
        raise UserError(
            f"{len(bare)} of {len(labels)} images in {where} have no label (the first is number "
            f"{bare[0] + 1}); label all images or none. -1 means unlabelled"
        )
    targets = [-1 if label is None else number[_plain(label)] for label in labels]
    unknown = sum(target < 0 for target in targets) - len(bare)
    if unknown:
        note_once(
            f"{unknown:,} of {len(labels):,} images in {where} are unlabelled: their label is -1 "
            "or missing"
        )
    return targets
