"""Collections written as a table: paths, labels and splits in CSV, Parquet or JSON lines.

``data=table`` reads one table, a folder with a table of each split (``metadata.csv`` beside the
images or in each split's folder, as Hugging Face's ``imagefolder`` has them), and a folder of
Parquet files that hold the images themselves, as Hugging Face's hub serves them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from convit_ssl.checksums import say_once
from convit_ssl.data.listing.folders import Listing, check_folder
from convit_ssl.data.listing.labels import check_known, class_table, say_absent, targets_of
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.part_names import join_files
from convit_ssl.data.listing.split_folders import SPLIT_NAMES
from convit_ssl.data.listing.tables import NESTED, read_table
from convit_ssl.data.listing.walking import EXTENSIONS, is_image_file, same_file, say_shared
from convit_ssl.data.listing.written import decoded
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.notes import note_once
from convit_ssl.data.shards.parquet_images import split_of_file, unpack, unpacked_rows
from convit_ssl.errors import UserError

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE = ("file_name", "file", "filename", "path", "filepath", "file_path", "image", "image_path",
         "img")  # fmt: skip
_LABEL = ("label", "labels", "class", "target", "category", "class_name", "diagnosis")
_SPLIT = ("split", "set", "fold", "subset", "partition")


@dataclass(frozen=True)
class Row:
    """One image of a table.

    Attributes:
        file: relative to the root, or absolute; of several files, joined.
        label: None without one.
        split: train, val or test.
        group: the cell of a column that was asked for.
    """

    file: str
    label: str | None
    split: str
    group: str = ""


def find_table_images(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images of a split that a table names.

    Args:
        data_dir: a table, a table with its columns (``cells.csv:dapi+gfp,label``), or a folder.
        split: train, val or test.

    Raises:
        UserError: no table, no column with images, no images of this split, or labels for some of
            them only.
    """
    root, rows = _rows(os.fspath(data_dir))
    other = "test" if split == "test" else "val"
    parts = {row.split for row in rows}
    if "train" not in parts:
        raise UserError(f"{data_dir} names no images of train, only of {some(sorted(parts))}")
    if other == "val" and "val" not in parts and "test" in parts:
        other = "test"
        note_once(f"{data_dir} has no rows of val; those of test are taken")
    wanted = "train" if split == "train" else other
    own = [row for row in rows if row.split == wanted]
    if not own:
        raise UserError(
            f"{data_dir} has no rows of {split}: add a column called split with train and val, or "
            "hold some out with data.holdout=0.2 (knn: --holdout 0.2)"
        )
    own = _once_each(own, str(root), str(data_dir))
    labels = {part: [row.label for row in rows if row.split == part] for part in ("train", other)}
    check_known(labels["train"], labels[other], str(data_dir))
    known = (label for part in labels.values() for label in part if label is not None)
    classes = class_table(known, str(data_dir))
    targets = targets_of([row.label for row in own], classes, str(data_dir))
    labelled = own[0].label is not None
    if split != "train":
        say_shared(
            [row.file for row in rows if row.split == "train"], [row.file for row in own], str(root)
        )
        if labelled:
            say_absent(targets, classes, split, os.fspath(data_dir))
    files = [row.file for row in own]
    return Listing(root, files, targets, classes if labelled else [], os.fspath(data_dir))


def column_of(given: str, column: str) -> dict[str, str]:
    """A further column of the table of a collection, such as a patient or a plate, by image.

    Args:
        given: as `find_table_images` takes it.
        column: its name.

    Raises:
        UserError: the table has no such column.
    """
    _, rows = _rows(given, column)
    return {row.file: row.group for row in rows}


def _once_each(rows: list[Row], root: str, place: str) -> list[Row]:
    """The rows without repetitions.

    Raises:
        UserError: a file under two classes.
    """
    seen: dict[str, Row] = {}
    for row in rows:
        before = seen.setdefault(same_file(row.file, root), row)
        if before.label != row.label:
            raise UserError(
                f"{row.file} is in {place} twice, as {before.label} and as {row.label}; an image "
                "has one class"
            )
    if len(seen) < len(rows):
        note_once(f"{len(rows) - len(seen):,} rows of {place} name a file again; each counts once")
    return list(seen.values())


def _rows(given: str, group: str = "") -> tuple[Path, list[Row]]:
    """The folder that paths are relative to, and all rows, with the cells of a further column."""
    path, columns = _parted(given)
    place = Path(path).expanduser().absolute()
    if place.is_file():
        return place.parent, _of_table(place, "", columns, group)
    folder = check_folder(path)
    found: list[Row] = []
    for inner in ("", *sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())):
        table = next((t for n in _METADATA if (t := folder / inner / n).is_file()), None)
        if table is not None:
            rows = _of_table(table, inner, columns, group)
            found += [_below(row, inner) for row in rows] if inner else rows
    if found:
        return folder, found
    shards = sorted(p for p in folder.rglob("*.parquet") if not p.name.startswith("."))
    if shards and group:
        raise UserError(
            f"{folder} holds Parquet files with images, of which only image, label and split are "
            f"read, not the column {group!r}"
        )
    if shards:
        root = unpack(folder, shards)
        return root, [Row(row["file"], row["label"], row["split"]) for row in unpacked_rows(root)]
    if list(folder.rglob("*.arrow")):
        raise UserError(
            f"{folder} was written by save_to_disk of Hugging Face's datasets; write Parquet "
            "with its to_parquet"
        )
    raise UserError(
        f"{folder} holds no {' or '.join(_METADATA)}, neither directly nor in the folder of a "
        "split, and no Parquet files; data=table reads one of these, or one table"
    )


def _below(row: Row, folder: str) -> Row:
    file = row.file if os.path.isabs(row.file) else f"{folder}/{row.file}"
    return replace(row, file=file)


def _parted(given: str) -> tuple[str, list[str]]:
    """``cells.csv:dapi+gfp,label`` as the table and its columns."""
    path, colon, columns = given.rpartition(":")
    if colon and "/" not in columns and path.lower().endswith(TABLES):
        return path, [name.strip() for name in columns.split(",")]
    return given, []


def _of_table(place: Path, folder: str, asked: list[str], group: str = "") -> list[Row]:
    """The rows of a table; without a column of splits, as its name or its paths say."""
    table = _read_lines(place) if place.suffix.lower() == ".jsonl" else read_table(str(place))
    files, label = _columns(table, place, asked)
    if group and group not in table:
        raise UserError(
            f"the table {place} has no column {group!r}; its columns are {some(list(table))}"
        )
    split = next((name for name in _SPLIT if _is_split(table.get(name))), None)
    here = split_of_file(folder or place.stem)
    rows, empty = [], 0
    for number in range(len(table[files[0]])):
        paths = [(name, table[name][number].replace("\\", "/")) for name in files]
        if not all(path for _, path in paths):
            empty += 1
            continue
        file = paths[0][1] if len(paths) == 1 else join_files(paths)
        part = _split_word(table[split][number]) if split else here or _first(paths[0][1])
        name = table[label][number] or "-1" if label else None
        cell = table[group][number] if group else ""
        rows.append(Row(file, name, part or "train", cell))
    if not rows:
        raise UserError(f"the table {place} names no images in {' and '.join(files)}")
    if empty:
        note_once(f"{empty:,} rows of {place} are left out: a path is missing")
    return rows


def _read_lines(place: Path) -> dict[str, list[str]]:
    try:
        lines = decoded(read_bytes(str(place))).split("\n")
        found = [(number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip()]
    except RecursionError as error:
        raise UserError(f"cannot read the table {place}: it is nested too deep") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the table {place}: {error}") from error
    wrong = next((number for number, row in found if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(
            f"cannot read the table {place}: line {wrong} is not a JSON object, such as "
            '{"file_name": "a.png", "label": "cat"}'
        )
    rows = [row for _, row in found]
    names = list(dict.fromkeys(name for row in rows for name in row))
    nested = {n for row in rows for n, value in row.items() if isinstance(value, (list, dict))}
    for name in sorted(nested):
        say_once(f"warning: {name!r} of {place} {NESTED}; it is left out")
    names = [name for name in names if name not in nested]
    return {n: ["" if row.get(n) is None else str(row[n]) for row in rows] for n in names}


def _columns(
    table: dict[str, list[str]], place: Path, asked: list[str]
) -> tuple[list[str], str | None]:
    """The columns with paths, one or one for each channel, and the one with labels."""
    if asked:
        files = asked[0].split("+")
        label = asked[1] if len(asked) > 1 else None
        missing = [name for name in (*files, *asked[1:]) if name not in table]
        if missing:
            raise UserError(
                f"the table {place} has no column {missing[0]!r}; its columns are "
                f"{some(list(table))}"
            )
        return files, label
    label = next((name for name in table if name.lower() in _LABEL), None)
    usual = next((n for wanted in _FILE for n in table if n.lower() == wanted), None)
    if usual is not None:
        return [usual], label
    files = [name for name, cells in table.items() if _are_images(cells)]
    if not files:
        raise UserError(
            f"the table {place} has no column with images; call it {_FILE[1]}, or name the "
            f"columns: {place.name}:COLUMN,LABEL. Its columns are {some(list(table))}"
        )
    if len(files) > 1:
        note_once(f"the channels of each image of {place} lie in the files of {some(files)}")
    return files, label


def _are_images(cells: list[str]) -> bool:
    """Whether the cells that are filled are paths of images."""
    given = [cell for cell in cells[:100] if cell]
    return bool(given) and all(
        os.path.splitext(cell)[1].lower() in EXTENSIONS or is_image_file(cell) for cell in given
    )


def _is_split(cells: list[str] | None) -> bool:
    return cells is not None and all(_split_word(cell) for cell in cells)


def _split_word(text: str) -> str | None:
    return next((s for s, words in SPLIT_NAMES.items() if text.strip().lower() in words), None)


def _first(path: str) -> str | None:
    """The split that the first folder of a path names."""
    return _split_word(path.split("/")[0]) if "/" in path else None
