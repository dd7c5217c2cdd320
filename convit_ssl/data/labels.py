"""Labels as they are written in lists and shards, to numbers and names of classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convit_ssl.data.names import some
from convit_ssl.errors import UserError

MOST_CLASSES = 1_000_000


def class_table(labels: Iterable[str]) -> list[str]:
    """Names of the classes, whose positions are their numbers; empty without labels.

    Whole numbers stand for themselves: ``0 .. largest``. Anything else is a name, and the names
    are sorted.

    Raises:
        UserError: a number that cannot be one of a class.
    """
    names = set(labels)
    if not names:
        return []
    if not all(name.isdecimal() for name in names):
        return sorted(names)
    largest = max(int(name) for name in names)
    if largest >= MOST_CLASSES:
        raise UserError(f"a label is {largest}; classes are numbered from 0")
    return [str(number) for number in range(largest + 1)]


def check_known(train: Iterable[str | None], val: Iterable[str | None], where: str) -> None:
    """Refuse classes that nothing can be learned of.

    Args:
        train: labels of its images, None without one.
        val: the same; nothing is asked where one of the two has no labels.
        where: the collection.

    Raises:
        UserError: val has classes that train lacks.
    """
    known = {_plain(label) for label in train if label is not None}
    unknown = sorted({_plain(label) for label in val if label is not None} - known)
    if known and unknown:
        raise UserError(
            f"val has classes that train lacks, in {where}: {some(unknown)}. "
            "Label both in the same words or numbers, or leave those images out"
        )


def _plain(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label  # "007" is 7


def targets_of(labels: Sequence[str | None], classes: Sequence[str], where: str) -> list[int]:
    """The class number of each label, -1 where no image has one.

    Args:
        labels: of the images, all with one or all without.
        classes: of `class_table`.
        where: the list or the shards, for the message.

    Raises:
        UserError: some images have a label and others none.
    """
    number = {name: position for position, name in enumerate(classes)}
    if all(name.isdecimal() for name in classes):  # "007" is 7
        targets = [int(label) if label is not None else -1 for label in labels]
    else:
        targets = [number[label] if label is not None else -1 for label in labels]
    bare = sum(target < 0 for target in targets)
    if 0 < bare < len(targets):
        first = next(i for i, target in enumerate(targets) if target < 0)
        raise UserError(
            f"{bare} of {len(targets)} images in {where} have no label (the first is number "
            f"{first + 1}); give one to each, or to none"
        )
    return targets
