"""A collection that is written down: ``train.txt`` and ``val.txt``, one image a line.

A line is a path, relative to the folder of the list or absolute; with labels, a blank or a tab
and the number or the name of the class follow. ``#`` begins a comment line. No folder is walked,
which on a network's file system saves the minutes that ImageNet's million files take.
"""

from __future__ import annotations

import os
from pathlib import Path

from convit_ssl.data.folders import EXTENSIONS, Listing
from convit_ssl.data.labels import class_table, targets_of
from convit_ssl.data.retries import retried
from convit_ssl.data.storage import is_url, read_bytes
from convit_ssl.errors import UserError


def find_listed_images(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images that the list of a split names.

    Args:
        data_dir: a folder or URL with ``train.txt`` and ``val.txt``; or one list, of train.
        split: train or val.

    Raises:
        UserError: no such list, no text, no images in it, or labels for some of them only.
    """
    given = os.fspath(data_dir)
    alone = given.endswith(".txt")
    root = given.rpartition("/")[0] if alone else given.rstrip("/")
    if not is_url(given):
        root = str(Path(root or ".").expanduser().absolute())
    names = [given.rpartition("/")[2]] if alone else ["train.txt", "val.txt"]
    place = f"{root}/{names[0] if alone else f'{split}.txt'}"
    if alone and split != "train":
        raise UserError(f"{given} is the list of train alone; evaluation needs a folder with "
                        "train.txt and val.txt")  # fmt: skip
    lines = {name: _lines(f"{root}/{name}", f"{root}/{name}" == place) for name in names}
    labels = (label for part in lines.values() for _, label in part if label is not None)
    classes = class_table(labels)
    own = lines[place.rpartition("/")[2]]
    targets = targets_of([label for _, label in own], classes, place)
    return Listing(
        root if is_url(root) else Path(root),
        [path for path, _ in own],
        targets,
        classes if own[0][1] is not None else [],
    )


def _lines(place: str, needed: bool) -> list[tuple[str, str | None]]:
    try:
        text = retried(lambda: read_bytes(place)).decode("utf-8")
    except FileNotFoundError:
        if not needed:
            return []
        raise UserError(f"there is no list {place}; it holds one image a line") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read the list {place}: {reason}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            found.append(_image(line.strip(), f"line {number} of {place}"))
    if needed and not found:
        raise UserError(f"the list {place} is empty")
    return found


def _image(line: str, where: str) -> tuple[str, str | None]:
    """Path and label of a line. What ends like an image's name is a path, blanks and all."""
    if "\0" in line:
        raise UserError(f"{where} holds a NUL byte, which no path can: {line[:80]!r}")
    if _is_image(line):
        return line, None
    path, _, label = line.replace("\t", " ").rpartition(" ")
    path = line[: len(path)].rstrip()
    if not _is_image(path):
        raise UserError(
            f"{where} names no image: {line[:80]!r}; it is a path that ends in .jpg, .png or the "
            "like, and may have a class after a blank"
        )
    return path, label


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS
