"""Choosing some of the images, by a short text such as ``fraction=0.05,seed=0``.

Nothing is copied. The parts of the text, joined by commas:

* ``fraction=0.05``: this share of each class (at least one image of each);
* ``per_class=10``: this many images of each class;
* ``seed=0``: which ones. A smaller choice of the same seed lies within a larger one;
* ``list=1percent.txt``: the files named in a text file, one a line, as in SimCLR's lists
  (``n01440764_10026.JPEG``) or with the class folder (``n01440764/n01440764_10026.JPEG``);
* ``classes=first:100``, ``classes=file:mine.txt`` or ``classes=cat+dog``: only these
  classes, numbered anew in the order of the folder.

``classes`` is applied to train and val; the others choose among training images only.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from convit_ssl.data.images import take
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.names import some
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError
from convit_ssl.writing import whole_file

_EXAMPLE = "for example fraction=0.05,seed=0 or per_class=10 or list=1percent.txt"


@dataclass(frozen=True)
class SubsetSpec:
    """A choice of images; ``str()`` gives the text that :func:`parse_subset` reads.

    Attributes:
        fraction: share of each class, in (0, 1].
        per_class: number of images of each class.
        seed: of the choice by ``fraction`` or ``per_class``.
        list: text file with the names of the images.
        classes: ``first:N``, ``file:PATH``, or names joined by ``+``.
    """

    fraction: float | None = None
    per_class: int | None = None
    seed: int = 0
    list: str | None = None
    classes: str | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and self.per_class is not None:
            raise UserError("give either fraction or per_class, not both")
        if self.fraction is not None and not 0.0 < self.fraction <= 1.0:
            raise UserError(
                f"subset fraction is {self.fraction:g}; it must be above 0 and at most 1 (5 % is "
                f"0.05)"
            )
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"subset per_class is {self.per_class}; it is at least 1")
        if self.seed < 0:
            raise UserError(f"subset seed is {self.seed}; it is at least 0")

    def __str__(self) -> str:
        seeded = self.fraction is not None or self.per_class is not None
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or (field.name == "seed" and not seeded):
                continue
            parts.append(
                f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}"
            )
        return ",".join(parts)


def parse_subset(text: str) -> SubsetSpec:
    """Read ``fraction=0.05,seed=0``. Raises UserError for what it does not understand."""
    kinds = {"fraction": float, "per_class": int, "seed": int, "list": str, "classes": str}
    values: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or key not in kinds:
            raise UserError(
                f"cannot read {part.strip()!r} in the subset {text!r}: it is made of "
                f"{', '.join(f'{name}=' for name in kinds)}; {_EXAMPLE}"
            )
        if key in values:
            raise UserError(f"{key} is given twice in the subset {text!r}")
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise UserError(f"{key}={value} in the subset {text!r} is not a number") from None
    return SubsetSpec(**values)


def choose(listing: Listing, subset: str | SubsetSpec, split: str = "train") -> Listing:
    """The chosen part of a listing.

    Raises:
        UserError: files or classes that are not there, a class with too few images,
            labels needed and absent.
    """
    spec = parse_subset(subset) if isinstance(subset, str) else subset
    if spec.list is not None and split == "train":
        listing = take(listing, find_listed(listing, spec.list))
    if spec.classes is not None:
        listing = _keep_classes(listing, class_names(listing.classes, spec.classes, listing.root))
    if split != "train":
        return listing
    if spec.fraction is not None or spec.per_class is not None:
        listing = take(listing, _draw(listing, spec))
    return listing


def _draw(listing: Listing, spec: SubsetSpec) -> list[int]:
    if spec.per_class is not None and not listing.labelled:
        raise UserError(f"per_class needs labels, but the images of {listing.root} have none")
    members: dict[int, list[int]] = {}
    for index, target in enumerate(listing.targets):
        members.setdefault(target, []).append(index)
    if spec.per_class is not None:
        members.pop(-1, None)  # images without a label belong to no class
        poor = [
            f"{listing.classes[target]} ({len(indices)})"
            for target, indices in members.items()
            if len(indices) < spec.per_class
        ]
        if poor:
            raise UserError(
                f"per_class={spec.per_class}, but these classes of {listing.root} have fewer "
                f"images: {some(poor)}"
            )
    chosen: list[int] = []
    for indices in members.values():
        count = spec.per_class or max(1, round(len(indices) * (spec.fraction or 1.0)))
        chosen += sorted(indices, key=lambda i: _rank(spec.seed, listing.files[i]))[:count]
    if spec.fraction is not None:
        small = {listing.classes[target]: len(indices) for target, indices in members.items()
                 if target >= 0 and round(len(indices) * spec.fraction) == 0}  # fmt: skip
        _say_rounding(spec.fraction, len(chosen), listing, len(members), small)
    return sorted(chosen)


def _say_rounding(
    fraction: float, chosen: int, listing: Listing, groups: int, small: dict[str, int]
) -> None:
    """Say where small classes make the share another one than was asked for.

    Args:
        fraction: that was asked for.
        chosen: images that were taken.
        listing: the images, by class.
        groups: how many classes.
        small: images of each class of which the share is less than half an image.
    """
    images = len(listing.files)
    taken = f"fraction={fraction:g} of {images:,} images in {listing.root}: {chosen:,} were taken, "
    if abs(chosen - fraction * images) > max(1.0, 0.1 * fraction * images):
        each = images / groups
        note_once(
            f"{taken}{100 * chosen / images:.1f} %. Classes of about {each:.0f} images give whole "
            "images only, and one at least"
        )
    elif small:
        named = some([f"{name} (1 of {count:,})" for name, count in small.items()])
        note_once(
            f"{taken}with one image of each class whose share is less than half of one: {named}"
        )


def _rank(seed: int, file: str) -> bytes:
    # A hash of the name, not a generator: adding a file elsewhere changes nothing here,
    # and it is the same for any version of NumPy.
    return hashlib.sha256(f"{seed} {file}".encode("utf-8", "surrogateescape")).digest()


def class_names(available: list[str], text: str, root: str | os.PathLike[str]) -> list[str]:
    """The classes that ``first:N``, ``file:PATH`` or ``a+b`` stand for, sorted.

    Raises:
        UserError: classes that are not in ``available``, or none at all.
    """
    if not available:
        raise UserError(f"classes={text} needs class folders, but the images of {root} have none")
    kind, _, rest = text.partition(":")
    if kind == "first":
        if not rest.isdecimal() or not 1 <= int(rest) <= len(available):
            raise UserError(
                f"classes={text}: first: takes a number from 1 to {len(available)}, "
                f"the classes of {root}"
            )
        return available[: int(rest)]
    known = set(available)
    # A class list may have columns or comments, as those of ImageNet-100 do; a name, spaces.
    names = (
        [line if line in known else line.split()[0] for line in _lines(rest, "class list")]
        if kind == "file"
        else [name.strip() for name in text.split("+")]
    )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{len(unknown)} classes of classes={text} are not in {root}: {some(unknown)}. "
            f"It has {some(available)}"
        )
    return sorted(set(names))


def _keep_classes(listing: Listing, names: list[str]) -> Listing:
    number = {name: new for new, name in enumerate(names)}
    renumber = [number.get(name, -1) for name in listing.classes]
    kept = [i for i, t in enumerate(listing.targets) if t >= 0 and renumber[t] >= 0]
    part = take(listing, kept)
    targets = [renumber[t] for t in part.targets]
    return Listing(part.root, part.files, targets, names, part.table)


def _lines(path: str, what: str) -> list[str]:
    try:
        text = read_bytes(str(Path(path).expanduser())).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read the {what} {path}: {reason}") from error
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise UserError(f"the {what} {path} is empty")
    return kept


def find_listed(listing: Listing, path: str) -> list[int]:
    """Positions of the files that a list names, in the order of the listing.

    Raises:
        UserError: a name that is missing, ambiguous or given twice.
    """
    by_file = {file: index for index, file in enumerate(listing.files)}
    by_name: dict[str, list[int]] = {}
    for index, file in enumerate(listing.files):
        by_name.setdefault(file.rsplit("/", 1)[-1], []).append(index)
    found: dict[int, str] = {}
    missing, ambiguous, doubled = [], [], []
    for line in _lines(path, "list"):
        name = line.removeprefix("./")
        matches = [by_file[name]] if name in by_file else by_name.get(name, [])
        if not matches:
            missing.append(line)
        elif len(matches) > 1:
            ambiguous.append(line)
        elif matches[0] in found:
            doubled.append(line)
        else:
            found[matches[0]] = line
    if missing:
        raise UserError(
            f"{len(missing)} files of the list {path} are not in {listing.root}: {some(missing)}"
        )
    if ambiguous:
        raise UserError(
            f"{len(ambiguous)} names in the list {path} exist in several folders of "
            f"{listing.root}: {some(ambiguous)}. Write them as class/file"
        )
    if doubled:
        raise UserError(f"the list {path} names {len(doubled)} files twice: {some(doubled)}")
    return sorted(found)


def write_list(listing: Listing, path: str | os.PathLike[str]) -> None:
    """Write a list that ``list=`` reads, one file a line.

    In SimCLR's format where every file is ``<class>/<class>_...``, as in ImageNet;
    with the class folder otherwise.

    Raises:
        UserError: a file name with a line break, or a place that cannot be written.
    """
    bare = all(
        file.count("/") == 1 and file.split("/")[1].startswith(file.split("/")[0] + "_")
        for file in listing.files
    )
    names = [file.split("/")[1] if bare else file for file in listing.files]
    if any(len(name.splitlines()) != 1 or name != name.strip() for name in names):
        raise UserError(f"a file name in {listing.root} cannot stand on a line of a list")
    target = Path(path).expanduser()
    try:
        target.parent.stat()  # it is not made
        with whole_file(target) as partial:
            partial.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(f"cannot write the list {target}: {error}") from error
