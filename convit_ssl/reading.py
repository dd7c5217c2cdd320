"""Reading files that may be broken or hostile: stated limits, and one message each.

The limits hold for every reader of the package. They are far above what real files need, and low
enough that no file takes the machine down:

- text (JSON, YAML, JSON lines): 64 MiB, read in one go; YAML 1 MiB, for its parser is slow;
- values in JSON or YAML once aliases are written out: 1,000,000, nested 100 deep;
- weights: 64 GiB on disk. They are mapped into memory and not copied until their shapes fit;
- arrays of an NPZ: 4 GiB once they are unpacked, by what their headers say.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from convit_ssl.errors import UserError
from convit_ssl.sealed import unseal

TEXT_LIMIT = 64 * 2**20
YAML_LIMIT = 2**20
WEIGHTS_LIMIT = 64 * 2**30
ARRAYS_LIMIT = 4 * 2**30
MOST_VALUES = 1_000_000
DEEPEST = 100

MADE_AGAIN = "Delete it, and the same command makes it again"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def regular_file(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> Path:
    """The path of an ordinary file that is not too large.

    Args:
        path: of the file.
        limit: its largest size in bytes.

    Raises:
        UserError: the file does not exist, is a folder, a pipe or a device, which may never end,
            or it is larger than the limit.
    """
    name = printable(os.fspath(path))
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {name}: {reason}") from error
    for is_kind, words in _KINDS:
        if is_kind(found.st_mode):
            raise UserError(f"cannot read {name}: it is {words}, not a file")
    if found.st_size > limit:
        raise UserError(
            f"cannot read {name}: it has {found.st_size:,} bytes, and the limit is {limit:,}"
        )
    return Path(path)


@contextlib.contextmanager
def utf8_place(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path that PyTorch and safetensors can open: of an open file, where a name is not UTF-8.

    Raises:
        OSError: the file does not exist.
    """
    try:
        os.fspath(path).encode()
        is_utf8 = True
    except UnicodeEncodeError:
        is_utf8 = False
    if is_utf8:
        yield Path(path)
        return
    with open(path, "rb") as file:
        yield Path(f"/dev/fd/{file.fileno()}")


def read_text(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: it cannot be read, is too large, or is not text.
    """
    file = regular_file(path, limit)
    try:
        with open(file, "rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {printable(str(path))}: {error.strerror}") from error
    if len(data) > limit:
        raise UserError(f"cannot read {printable(str(path))}: it has more than {limit:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read {printable(str(path))}: it is not UTF-8 text (byte {error.start})"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file, without the checksum that ours carry.

    Raises:
        UserError: it cannot be read, is not JSON, is nested too deep, or is not what was written.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise UserError(f"cannot read {printable(str(path))}: {_TOO_DEEP}") from error
    except ValueError as error:
        reason = printable(str(error))
        raise UserError(f"cannot read {printable(str(path))} as JSON: {reason}") from error
    check_values(content, path)
    return unseal(content, printable(os.fspath(path)))


def read_record(path: str | os.PathLike[str], *keys: str, way: str = MADE_AGAIN) -> dict[str, Any]:
    """A JSON object that an earlier start of the same command wrote.

    Args:
        path: of the file.
        keys: that it must have.
        way: out, where it is damaged.

    Raises:
        UserError: it cannot be read, is damaged or lacks a key.
    """
    try:
        content = read_json(path)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise UserError(f"{error}. {way}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        what = f"it has no {missing[0]!r}" if missing else "it is not a JSON object"
        raise UserError(f"{printable(os.fspath(path))} is damaged: {what}. {way}")
    return content


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file: plain values only.

    Raises:
        UserError: it cannot be read, is not YAML, or grows too large when its aliases are
            written out.
    """
    import yaml

    text = read_text(path, YAML_LIMIT)
    name = printable(str(path))
    try:
        loader = yaml.SafeLoader(text)  # not the C one, which overflows where this one raises
        node = loader.get_single_node()
        # Before construction, which writes merge keys out.
        check_values(node, path)
        content = None if node is None else loader.construct_document(node)
    except RecursionError as error:
        raise UserError(f"cannot read {name}: {_TOO_DEEP}") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"cannot read {name} as YAML: {reason}") from error
    check_values(content, path)
    return content


def check_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file that another library is about to read, within the limits.

    Returns:
        None where it is not YAML: that library says it, with the line.

    Raises:
        UserError: it is not a file, is too large, or grows too large.
    """
    import yaml

    try:
        return read_yaml(path)
    except UserError as error:
        if isinstance(error.__cause__, (yaml.YAMLError, UnicodeDecodeError, ValueError)):
            return None
        raise


def announced_arrays(
    file: str | os.PathLike[str] | IO[bytes],
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of an NPZ, without unpacking it.

    Args:
        file: its path, or its bytes as a file.

    Raises:
        ValueError: they would take more than `ARRAYS_LIMIT`, or need Python objects to be made.
        zipfile.BadZipFile: it is not an NPZ.
    """
    import zipfile

    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    found: dict[str, tuple[tuple[int, ...], Any]] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as start:
                version = npy.read_magic(start)
                if version not in readers:
                    raise ValueError(f"{printable(member.filename)} has an unknown version of NPY")
                shape, _, dtype = readers[version](start)
            if dtype.hasobject:
                raise ValueError(
                    f"{printable(member.filename)} holds Python objects, which are not read"
                )
            found[member.filename.removesuffix(".npy")] = shape, dtype
    total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in found.values())
    if total > ARRAYS_LIMIT:
        raise ValueError(
            f"its arrays take {_about(total)} bytes unpacked, and the limit is {ARRAYS_LIMIT:,}"
        )
    return found


_TOO_DEEP = f"it is nested more than {DEEPEST} deep"


def check_values(content: Any, path: str | os.PathLike[str]) -> None:
    """Refuse content that is small in its file and endless when it is walked.

    YAML's aliases and pickles can refer to one list many times, and to the list they are part of.

    Raises:
        UserError: more than `MOST_VALUES` values, deeper than `DEEPEST`, or a list in itself.
    """
    sizes: dict[int, int] = {}
    name = printable(os.fspath(path))

    def size(value: Any, depth: int) -> int:
        if depth > DEEPEST:
            raise UserError(f"cannot read {name}: {_TOO_DEEP}, or contains itself")
        if isinstance(value, Mapping):
            children: list[Any] = [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            children = list(value)
        elif isinstance(getattr(value, "value", None), list):  # a node of YAML
            children = value.value
        else:
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = 1 + sum(size(child, depth + 1) for child in children)
        return sizes[id(value)]

    total = size(content, 0)
    if total > MOST_VALUES:
        raise UserError(
            f"cannot read {name}: it expands to {_about(total)} values, and the limit is "
            f"{MOST_VALUES:,}"
        )


def _about(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"about 10^{len(str(number)) - 1}"


def printable(text: str, most: int = 300) -> str:
    """Text of unknown origin for a terminal or a log: no control characters, and not endless."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return clean if len(clean) <= most else f"{clean[:most]}..."


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1, as accuracies are. True and NaN are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return bool(0 <= value <= 1)
