"""Finding the images of a folder: ``train/<class>/``, ``val/<class>/`` or all in one place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convit_ssl.data.listing.labels import say_absent
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.split_folders import SPLIT_NAMES, check_split, find_splits
from convit_ssl.data.listing.walking import (
    EXTENSIONS,
    Walk,
    entries,
    images_below,
    same_file,
    say_unread,
    what_lies_there,
)
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError

__all__ = ["EXTENSIONS", "Listing", "check_folder", "find_images", "list_images"]


@dataclass(frozen=True)
class Listing:
    """The images under ``root``.

    Attributes:
        root: absolute folder, or URL, that ``files`` are relative to.
        files: paths with ``/``, in sorted order: by class, then by name.
        targets: class number of each file, -1 without label.
        classes: sorted names of the classes; empty without labels. Those of val are train's,
            whether or not val has images of each.
        table: that names the images, as it was given with its columns; "" without one.
    """

    root: Path | str
    files: list[str]
    targets: list[int]
    classes: list[str]
    table: str = ""

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return bool(self.classes)


def list_images(root: Path, classes: list[str] | None = None) -> Listing:
    """List ``root/<class>/**``; images directly in ``root`` make the folder unlabelled.

    Args:
        root: the folder.
        classes: of all folders of the collection, which then may be missing or empty here; by
            default those that are here.

    Raises:
        UserError: a class folder without images, or no images at all.
    """
    here = entries(root)
    walk = Walk(Counter(here.unread), bool(here.linked))
    if here.images:
        if here.folders:
            note_once(
                f"{root} contains both images and folders: used as one collection without labels"
            )
        walk.unread.clear()
        files = images_below(root, "", walk)
        say_unread(root, walk.unread, len(files))
        return Listing(root, files, [-1] * len(files), [])
    names = here.folders if classes is None else classes
    files, targets, empty = [], [], []
    for name in here.folders:
        found = images_below(root / name, f"{name}/", walk)
        if not found:
            empty.append(name)
        files += found
        targets += [names.index(name) if name in names else -1] * len(found)
    if not files:
        raise UserError(
            f"no images in {root}. Looked for {', '.join(sorted(EXTENSIONS))} files, in it and in "
            f"its subfolders{what_lies_there(walk.unread)}"
        )
    if empty and classes is None:
        raise UserError(
            f"class folders without images in {root}: {some(empty)}. Remove them or fill them"
            f"{what_lies_there(walk.unread)}"
        )
    say_unread(root, walk.unread, len(files))
    suspects = range(len(files)) if walk.linked else _sharing(walk.inodes)
    _say_in_two_classes(root, files, targets, suspects)
    return Listing(root, files, targets, list(names))


def _sharing(inodes: Sequence[int]) -> list[int]:
    """Positions whose inode is not theirs alone; of another file system's, too."""
    _, group, counts = np.unique(np.asarray(inodes), return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[group] > 1).tolist()


def _say_in_two_classes(
    root: Path, files: list[str], targets: list[int], suspects: Sequence[int]
) -> None:
    """A file that links put into several classes teaches a network both."""
    first: dict[str, int] = {}
    pairs = {}
    for place in suspects:
        before = first.setdefault(same_file(files[place], os.fspath(root)), place)
        if targets[before] != targets[place]:
            pairs[before] = f"{files[before]} and {files[place]}"
    if pairs:
        what = "1 file is" if len(pairs) == 1 else f"{len(pairs):,} files are"
        note_once(
            f"{what} in more than one class, by symbolic or hard links: "
            f"{some(list(pairs.values()), 3)}, in {root}. Each counts once in every class"
        )


def check_folder(path: str | os.PathLike[str]) -> Path:
    """``path`` as an absolute folder. Raises UserError where it is missing or no folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        nearest = next((p for p in folder.absolute().parents if p.is_dir()), Path("/"))
        raise UserError(
            f"data_dir {folder} does not exist (the nearest existing folder is {nearest})"
        )
    if not folder.is_dir():
        raise UserError(f"data_dir {folder} is a file; give the folder that contains the images")
    with os.scandir(folder) as listed:
        empty = next(listed, None) is None
    if empty:
        raise UserError(f"data_dir {folder} is empty")
    return folder.absolute()


def _shared_classes(data_dir: Path, train: str, other: str) -> list[str] | None:
    """Train's classes, where both splits are labelled: those of the other are among them.

    Raises:
        UserError: the other split has classes that train lacks.
    """
    sides = []
    for name in (train, other):
        here = entries(data_dir / name)
        if here.images or not here.folders:
            return None
        sides.append(here.folders)
    only_train = sorted(set(sides[0]) - set(sides[1]))
    only_other = sorted(set(sides[1]) - set(sides[0]))
    if only_other:
        parts = [
            f"only in {split}/: {some(names)}"
            for split, names in ((train, only_train), (other, only_other))
            if names
        ]
        raise UserError(
            f"the class folders of {train}/ and {other}/ in {data_dir} differ; " + "; ".join(parts)
        )
    return sides[0]


def _holds_both(folder: Path) -> Path | None:
    """A folder directly below that has train/ and val/, as `folder` itself should."""
    for name in entries(folder).folders:
        below = {inner.lower() for inner in entries(folder / name).folders}
        if all(below & set(SPLIT_NAMES[split]) for split in ("train", "val")):
            return folder / name
    return None


def find_images(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images of one split of ``data_dir``.

    ``train``, ``val`` and ``test`` below ``data_dir`` where they exist, under these or other
    usual names (see `find_splits`); else ``data_dir`` itself is the training set, with a class
    per subfolder or, flat, without labels.

    Raises:
        UserError: missing or empty folder, no images, no such split, classes that train lacks.
    """
    check_split(split)
    folder = check_folder(data_dir)
    for name in ("train", "val"):
        if (folder / name).is_file():
            raise UserError(f"{folder / name} is a file; it should be the folder of that split")
    splits = find_splits(folder)
    if not splits and (meant := _holds_both(folder)):
        raise UserError(f"{folder} contains neither train/ nor val/, but {meant} does; use that")
    if split not in splits and split != "train":
        _refuse_missing(folder, split)
    if split == "train" and splits and "train" not in splits:
        raise UserError(
            f"{folder} has a val/ folder but no train/: add {folder / 'train'}/<class>/"
        )
    if split == "train":
        if "val" in splits:
            _shared_classes(folder, splits["train"], splits["val"])
        return list_images(folder / splits["train"] if splits else folder)
    classes = None
    if "train" in splits:
        classes = _shared_classes(folder, splits["train"], splits[split])
    listing = list_images(folder / splits[split], classes)
    say_absent(listing.targets, listing.classes, split, str(listing.root))
    return listing


def _refuse_missing(folder: Path, split: str) -> None:
    if folder.name.lower() in SPLIT_NAMES["train"]:
        beside = {name.lower() for name in entries(folder.parent).folders}
        if beside & set(SPLIT_NAMES[split]):
            raise UserError(
                f"{folder} is a single split; give {folder.parent}, which also contains {split}/"
            )
    if split == "test":
        raise UserError(f"{folder} has no test/ folder")
    raise UserError(
        f"{folder} has no val/ folder, which evaluation needs. Put labelled images into "
        f"{folder / 'val'}/<class>/"
    )
