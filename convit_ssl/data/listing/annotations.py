"""Labels and groups of images: from a table, from their folders, or from their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.labels import class_table
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.part_names import JOINT, split_joined, whole_file
from convit_ssl.data.listing.split_folders import SPLIT_NAMES
from convit_ssl.data.listing.table_collections import column_of
from convit_ssl.data.listing.tables import read_table
from convit_ssl.errors import UserError

_FORMS = "folder:N (the N-th folder of the path), column:NAME (of --labels) or name:REGEX"


@dataclass(frozen=True)
class Table:
    """Rows of a table, by image.

    Attributes:
        path: the file.
        rows: image (position in a listing) -> row.
        columns: name -> cells.
        label: the column with the labels; None without one.
    """

    path: str
    rows: dict[int, int]
    columns: dict[str, list[str]]
    label: str | None

    def cell(self, image: int, column: str) -> str:
        """The text for an image; "" where the table has no row of it."""
        row = self.rows.get(image)
        return "" if row is None else self.columns[column][row]


def parse_table(text: str) -> tuple[str, list[str]]:
    """``table.csv:file,label,patient`` as a path and its columns: file, label, others.

    Raises:
        UserError: no columns are named.
    """
    path, colon, names = text.rpartition(":")
    columns = [name.strip() for name in names.split(",") if name.strip()]
    if not colon or not path or not columns or "/" in names:
        raise UserError(
            f"labels {text!r}: write the table, a colon and its columns, the file name first, "
            "then the label, then whatever else is used: table.csv:file,label,patient"
        )
    return path, columns


def open_table(text: str, listing: Listing) -> Table:
    """A table's rows, matched to images by relative path or, where that is unique, file name.

    A relative path is looked for in the current folder, then beside the images.

    Raises:
        UserError: a table that cannot be read, that names none of the images, or one twice.
    """
    path, names = parse_table(text)
    path = _beside_images(path, listing)
    columns = read_table(path, names)
    places = _places(listing)
    rows: dict[int, int] = {}
    unknown: list[str] = []
    for row, file in enumerate(columns[names[0]]):
        image = places.get(file.replace("\\", "/").removeprefix("./"))
        if image is None:
            unknown.append(file)
            continue
        if image in rows and any(columns[n][row] != columns[n][rows[image]] for n in names):
            raise UserError(
                f"the table {path} has two different rows for {listing.files[image]}: rows "
                f"{rows[image] + 2} and {row + 2}"
            )
        rows[image] = row
    if not rows:
        raise UserError(
            f"none of the {len(unknown):,} files of column {names[0]!r} in {path} is in "
            f"{listing.root}. The table has {some(unknown, 3)}; the folder has "
            f"{some(list(listing.files[:3]), 3)}"
        )
    return Table(path, rows, columns, names[1] if len(names) > 1 else None)


def _beside_images(path: str, listing: Listing) -> str:
    """The table as it is, or the one of that name in the folder of the images or in its parent.

    Raises:
        UserError: it is in none of them.
    """
    given = Path(path).expanduser()
    root = Path(str(listing.root)).absolute()
    if given.is_absolute() or given.exists() or not root.is_dir():
        return path
    is_split = any(root.name.lower() in names for names in SPLIT_NAMES.values())
    folders = [root, root.parent] if is_split else [root]
    found = next((folder / given for folder in folders if (folder / given).exists()), None)
    if found is None:
        looked = some([str(folder) for folder in (Path.cwd(), *folders)])
        raise UserError(f"cannot read the table {path}: there is no such file in {looked}")
    return str(found)


def _places(listing: Listing) -> dict[str, int]:
    """Relative path, absolute path, bare name and stem of each image, as far as they are unique."""
    places: dict[str, int] = {}
    loose: dict[str, int] = {}
    for image, file in enumerate(listing.files):
        name = file.rpartition("/")[2]
        for key in (name, name.rpartition(".")[0], file.rpartition(".")[0]):
            loose[key] = image if loose.get(key, image) == image else -1
        if JOINT in file:  # of an image of several files, any of them
            for _, each in split_joined(file):
                loose[each] = image
        places[file] = image
        places[str(Path(str(listing.root)) / file)] = image
    return {key: image for key, image in loose.items() if image >= 0} | places


def labelled(listing: Listing, text: str) -> tuple[Listing, Table | None]:
    """The listing with the labels that a table, a folder or a pattern gives, and the table.

    Args:
        listing: the images.
        text: ``table.csv:file,label,...``, ``folder:N`` or ``name:REGEX``. Images without a row,
            or with an empty cell, get -1.

    Raises:
        UserError: labels that cannot be read.
    """
    table: Table | None = None
    if text.startswith(("folder:", "name:")):
        names = _keys(listing, text, None, "labels")
    else:
        table = open_table(text, listing)
        if table.label is None:
            return listing, table  # groups alone
        names = [table.cell(image, table.label) for image in range(len(listing.files))]
    classes = class_table(name for name in names if name)
    if not classes:
        raise UserError(f"labels {text!r} give no image of {listing.root} a label")
    number = {name: position for position, name in enumerate(classes)}
    if all(name.isdecimal() for name in classes):  # "007" is 7
        targets = [int(name) if name else -1 for name in names]
        used = sorted({target for target in targets if target >= 0})
        if len(used) < len(classes):  # gaps would be classes without images
            renumber = {value: position for position, value in enumerate(used)}
            targets = [renumber[t] if t >= 0 else -1 for t in targets]
            classes = [str(value) for value in used]
    else:
        targets = [number[name] if name else -1 for name in names]
    return Listing(listing.root, listing.files, targets, classes, listing.table), table


def group_keys(listing: Listing, group_by: str, table: Table | None) -> list[str]:
    """The group of each image: what must not be torn apart.

    Raises:
        UserError: a group that cannot be read for an image.
    """
    return _keys(listing, group_by, table, "group_by")


def _keys(listing: Listing, text: str, table: Table | None, what: str) -> list[str]:
    kind, colon, rest = text.partition(":")
    readers: dict[str, Callable[[int], str]] = {}
    if kind == "folder" and rest.isdecimal() and int(rest) >= 1:
        level = int(rest)
        whole = what == "group_by"
        readers[kind] = lambda image: _folder(listing.files[image], level, whole)
    elif kind == "column" and rest:
        cells = column_of(listing.table, rest) if table is None and listing.table else None
        if table is None and cells is None:
            raise UserError(
                f"{what} {text!r} needs a table: --labels table.csv:file,label,{rest} (in training "
                f"data.labels=...), or a collection that is a table itself (data=table)"
            )
        if table is not None and rest not in table.columns:
            raise UserError(
                f"{what} {text!r}: name the column after the label, as in "
                f"--labels {table.path}:{','.join([*table.columns, rest])}"
            )
        readers[kind] = (
            (lambda image: table.cell(image, rest))
            if table is not None
            else (lambda image: (cells or {}).get(whole_file(listing.files[image]), ""))
        )
    elif kind == "name" and rest:
        pattern = _pattern(rest, text, what)
        readers[kind] = lambda image: _matched(pattern, listing.files[image])
    if not colon or kind not in readers:
        raise UserError(f"{what} {text!r}: give {_FORMS}")
    keys = [readers[kind](image) for image in range(len(listing.files))]
    # An image that a table does not name is no part of what is divided.
    gaps = [
        listing.files[image]
        for image, key in enumerate(keys)
        if not key and (kind != "column" or table is None or image in table.rows)
    ]
    if gaps and what == "group_by":
        raise UserError(
            f"{what} {text!r} finds no group for {len(gaps):,} of {len(keys):,} images: "
            f"{some(gaps, 3)}"
        )
    return keys


def _folder(file: str, level: int, whole: bool) -> str:
    """A folder's name, or the path to it: patient 1 of one site is not patient 1 of another."""
    folders = file.split("/")[:-1]
    if len(folders) < level:
        return ""
    return "/".join(folders[:level]) if whole else folders[level - 1]


def _pattern(text: str, whole: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{what} {whole!r} is not a regular expression: {error}") from error


def _matched(pattern: re.Pattern[str], file: str) -> str:
    """What the pattern's groups, or the whole of it, match in the path."""
    found = pattern.search(file)
    if found is None:
        return ""
    parts: Sequence[str | None] = found.groups() or (found[0],)
    return "/".join(part or "" for part in parts)
