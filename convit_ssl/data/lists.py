"""A collection that is written down: ``train.txt`` and ``val.txt``, one image a line.

A line is a path, relative to the folder of the list or absolute; with labels, a blank or a tab
and the number or the name of the class follow. ``#`` begins a comment line. No folder is walked,
which on a network's file system saves the minutes that ImageNet's million files take.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from convit_ssl.data.folders import EXTENSIONS, Listing
from convit_ssl.data.labels import check_known, class_table, targets_of
from convit_ssl.data.retries import retried
from convit_ssl.data.storage import is_url, read_bytes
from convit_ssl.errors import UserError

# The last thing that ends like an image's name ends the path; both sides may hold blanks.
_LABELLED = re.compile(
    rf"(.*(?:{'|'.join(map(re.escape, sorted(EXTENSIONS)))}))[ \t]+(.+)", re.IGNORECASE
)


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
    found = {name: [label for _, label in part] for name, part in lines.items()}
    check_known(found[names[0]], found[names[-1]], root)
    classes = class_table(label for part in found.values() for label in part if label is not None)
    own = lines[place.rpartition("/")[2]]
    targets = targets_of(found[place.rpartition("/")[2]], classes, place)
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
    parted = _LABELLED.fullmatch(line)
    words = parted[2].split() if parted else []
    if parted is None or (len(words) > 1 and all(word.isdecimal() for word in words)):
        raise UserError(
            f"{where} names no image: {line[:80]!r}; it is a path that ends in .jpg, .png or the "
            "like, and may have one class after a blank or a tab"
        )
    return parted[1], parted[2]


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS
