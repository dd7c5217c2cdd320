"""Tables about images: CSV with the standard library, Parquet with pyarrow."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from convit_ssl.checksums import say_once
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.written import decoded
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.errors import UserError

_PARQUET = (".parquet", ".pq")
_DELIMITERS = (",", ";", "\t")
MOST_ROWS = 50_000_000  # of a Parquet table
NESTED = "holds lists or structs, and a cell has one value"


def read_table(path: str, columns: list[str] | None = None) -> dict[str, list[str]]:
    """Columns of a table as text; empty cells and missing values are "".

    Args:
        path: a .csv, .tsv, .parquet or .pq file.
        columns: which; all by default.

    Raises:
        UserError: it cannot be read, has no rows, or lacks a column.
    """
    nested: list[str] = []
    if Path(path).suffix.lower() in _PARQUET:
        table, nested = _read_parquet(path)
    else:
        table = _read_csv(path)
    wanted = list(table) if columns is None else columns
    missing = [name for name in wanted if name not in table]
    if missing and missing[0] in nested:
        raise UserError(f"the column {missing[0]!r} of the table {path} {NESTED}")
    if nested and columns is None:
        say_once(f"warning: the column {nested[0]!r} of {path} {NESTED}; it is left out")
    if missing:
        raise UserError(
            f"the table {path} has no column {missing[0]!r}; its columns are {some(list(table))}"
        )
    if not next(iter(table.values()), []):
        raise UserError(f"the table {path} has no rows")
    return {name: table[name] for name in wanted}


def _read_csv(path: str) -> dict[str, list[str]]:
    try:
        # A byte order mark, as spreadsheets write it, is no part of the first column's name.
        text = decoded(read_bytes(str(Path(path).expanduser())))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"cannot read the table {path}: {reason}") from error
    head = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise UserError(f"cannot read the table {path}: {error}") from error
    if not rows:
        raise UserError(f"the table {path} is empty")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise UserError(f"the table {path} has two columns with the same name: {some(names)}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise UserError(
                f"row {number} of the table {path} has {len(row)} cells, but its header has "
                f"{len(names)}"
            )
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}


def _read_parquet(path: str) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of single values, and the names of those of lists and structs."""
    try:
        import pyarrow.parquet as parquet
        import pyarrow.types as types
    except ImportError:
        raise UserError(
            f"{path}: Parquet needs pyarrow: pip install 'convit_ssl[tables]', or save the table "
            "as CSV"
        ) from None
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"cannot read the table {path}: no such file")
    columns: dict[str, list[str]] = {}
    nested: list[str] = []
    try:
        file = parquet.ParquetFile(place)
        rows = file.metadata.num_rows
        if rows > MOST_ROWS:  # a few kilobytes can repeat one value without end
            raise UserError(f"the table {path} has {rows:,} rows, and the limit is {MOST_ROWS:,}")
        for field in file.schema_arrow:
            if types.is_nested(field.type):
                nested.append(str(field.name))
                continue
            values = file.read([field.name]).column(0).to_pylist()
            columns[str(field.name)] = [
                "" if value is None else str(value).strip() for value in values
            ]
        short = next((name for name, cells in columns.items() if len(cells) != rows), None)
        if short is not None:
            raise UserError(
                f"cannot read the table {path}: it is damaged; it has {rows:,} rows, and its "
                f"column {short!r} has {len(columns[short]):,} values"
            )
    except UserError:
        raise
    except Exception as error:  # pyarrow has kinds of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot read the table {path}: {reason}") from error
    return columns, nested
