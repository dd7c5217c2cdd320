"""A collection that is written down: ``train.txt`` and ``val.txt``, one image a line.

A line is a path, relative to the folder of the list or absolute; with labels, a blank or a tab
and the number or the name of the class follow; -1 stands for no class. ``#`` begins a comment
line. No folder is walked, which on a network's file system saves the minutes that ImageNet's
million files take.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from convit_ssl.data.listing.folders import EXTENSIONS, Listing
from convit_ssl.data.listing.labels import check_known, class_table, say_absent, targets_of
from convit_ssl.data.listing.split_folders import SPLIT_NAMES
from convit_ssl.data.listing.walking import is_image_file, same_file, say_shared
from convit_ssl.data.listing.written import decoded
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.loading.retries import retried
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError

# The last thing that ends like an image's name ends the path; both sides may hold blanks.
_LABELLED = re.compile(
    rf"(.*(?:{'|'.join(map(re.escape, sorted(EXTENSIONS)))}))[ \t]+(.+)", re.IGNORECASE
)
Line = tuple[str, str | None]


def find_listed_images(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images that the list of a split names.

    Args:
        data_dir: a folder or URL with ``train.txt`` and ``val.txt``; or one list, of train.
        split: train, val or test.

    Raises:
        UserError: no such list, no text, no images in it, or labels for some of them only.
    """
    given = os.fspath(data_dir)
    alone = given.endswith(".txt")
    root = given.rpartition("/")[0] if alone else given.rstrip("/")
    if not is_url(given):
        root = str(Path(root or ".").expanduser().absolute())
    other = "test" if split == "test" else "val"
    names = [given.rpartition("/")[2]] if alone else [_list_of(root, s) for s in ("train", other)]
    if alone and split != "train":
        raise UserError(f"{given} is a list of training images only; evaluation needs a folder "
        f"with train.txt and val.txt")  # fmt: skip
    place = f"{root}/{names[0] if split == 'train' else names[1]}"
    lines = {name: _lines(f"{root}/{name}", f"{root}/{name}" == place) for name in names}
    found = {name: [label for _, label in part] for name, part in lines.items()}
    check_known(found[names[0]], found[names[-1]], root)
    given_labels = (label for part in found.values() for label in part if label is not None)
    classes = class_table(given_labels, root)
    if not alone:
        train, val = ([path for path, _ in lines[name]] for name in names)
        say_shared(train, val, root)
    own = lines[place.rpartition("/")[2]]
    targets = targets_of(found[place.rpartition("/")[2]], classes, place)
    if split != "train" and own[0][1] is not None:
        say_absent(targets, classes, split, place)
    return Listing(
        root if is_url(root) else Path(root),
        [path for path, _ in own],
        targets,
        classes if own[0][1] is not None else [],
    )


def _list_of(root: str, split: str) -> str:
    """The name of a split's list: ``train.txt``, or another usual name in a folder."""
    if not is_url(root) and os.path.isdir(root):
        usual = {f"{name}.txt" for name in SPLIT_NAMES[split]}
        found = sorted(name for name in os.listdir(root) if name.lower() in usual)
        if found and f"{split}.txt" not in found:
            note_once(f"{root}/{found[0]} is the list of {split}")
            return found[0]
    return f"{split}.txt"


def _lines(place: str, needed: bool) -> list[Line]:
    try:
        text = decoded(retried(lambda: read_bytes(place)))
    except FileNotFoundError:
        if not needed:
            return []
        raise UserError(
            f"the list {place} does not exist; expected a text file with one image per line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read the list {place}: {reason}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            found.append(_image(line.strip(), f"line {number} of {place}"))
    if needed and not found:
        raise UserError(f"the list {place} is empty")
    return _once_each(found, place)


def _once_each(lines: Sequence[Line], place: str) -> list[Line]:
    """The lines without repetitions.

    Raises:
        UserError: a file under two classes.
    """
    seen: dict[str, Line] = {}
    for path, label in lines:
        first, known = seen.setdefault(same_file(path, os.path.dirname(place)), (path, label))
        if known != label:
            linked = f" (by a link: {first} is the same file)" if path != first else ""
            raise UserError(
                f"{path} is in the list {place} twice, as {known or 'unlabelled'} and as "
                f"{label or 'unlabelled'}{linked}; an image can have only one class"
            )
    kept = list(seen.values())
    if len(kept) < len(lines):
        note_once(
            f"{len(lines) - len(kept):,} of {len(lines):,} lines of {place} repeat a file; each "
            f"file is used once"
        )
    return kept


def _image(line: str, where: str) -> tuple[str, str | None]:
    """Path and label of a line. What ends like an image's name is a path, blanks and all."""
    if "\0" in line:
        raise UserError(
            f"{where} contains a NUL byte, which is not allowed in a path: {line[:80]!r}"
        )
    if _is_image(line):
        return line, None
    parted = _LABELLED.fullmatch(line)
    words = parted[2].split() if parted else []
    if parted is None or (len(words) > 1 and all(word.isdecimal() for word in words)):
        raise UserError(
            f"{where} does not name an image: {line[:80]!r}. Expected a path that ends in .jpg, "
            f".png or similar, optionally followed by a space or tab and the class"
        )
    return parted[1], parted[2]


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS or is_image_file(path)
