"""JSON that says whether it still holds what was written.

An object carries the SHA-256 of its other entries, a line of measurements a CRC-32, and a text file
that people edit has its SHA-256 in a file beside it. Files from before there were checksums have
none, and are read as they are.

The checksum is over the values and not over the bytes, so that a file may be indented in another
way. Numbers keep their digits when Python reads and writes them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.writing import is_stream

KEY = "content_sha256"
LINE_KEY = "crc32"
BESIDE = ".sha256"
_MARK = f"# {KEY}: "


def seal(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The same in types of JSON, with a checksum of it as the last entry.

    Args:
        value: a JSON object; a checksum that it carries already is replaced.
        default: makes JSON of other types, as for `json.dumps`.
    """
    plain: dict[str, Any] = json.loads(json.dumps(value, default=default))
    plain.pop(KEY, None)
    return {**plain, KEY: _digest(plain)}


def unseal(content: Any, path: str) -> Any:
    """The content of a JSON file without its checksum.

    Args:
        content: as it was read.
        path: of the file, for the message.

    Raises:
        UserError: it has a checksum, and is not what was written.
    """
    if not isinstance(content, dict) or KEY not in content:
        return content
    plain = {key: value for key, value in content.items() if key != KEY}
    if content[KEY] != _digest(plain):
        raise UserError(
            f"{path} is damaged: its content does not match its checksum (if you edited it on "
            f'purpose, remove the entry "{KEY}")'
        )
    return plain


def seal_line(row: Mapping[str, Any]) -> str:
    """A line of JSON, with a checksum of its values and the line's end."""
    plain = {key: value for key, value in row.items() if key != LINE_KEY}
    return json.dumps({**plain, LINE_KEY: _crc(plain)}) + "\n"


def read_line(line: str) -> dict[str, Any] | None:
    """The row in a line, without its checksum; None where the line is damaged."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            return None
        stated = row.pop(LINE_KEY, None)
        return row if stated is None or stated == _crc(row) else None
    except (ValueError, RecursionError):
        return None


def seal_text(text: str) -> str:
    """A text with its SHA-256 as a line of its own behind it."""
    return f"{text}\n{_of_text(text)}\n"


def unseal_text(sealed: str) -> str | None:
    """The text that `seal_text` was given; None where it is damaged, or was never sealed."""
    text, _, stated = sealed.rstrip("\n").rpartition("\n")
    return text if stated == _of_text(text) else None


def was_never_sealed(text: str) -> bool:
    """Whether a file of JSON is whole without `seal_text`'s last line."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def seal_yaml(text: str) -> str:
    """A YAML file with a checksum of its text in a comment, the first line.

    At its end, the checksum would go with the part of a file that is cut off.
    """
    return f"{_MARK}{_of_text(text)}\n{text}"


def yaml_is_whole(text: str) -> bool:
    """Whether a YAML file holds what was written, as far as it says."""
    first, _, body = text.partition("\n")
    return not first.startswith(_MARK) or first.removeprefix(_MARK) == _of_text(body)


def note_beside(path: Path) -> None:
    """Write the SHA-256 of a file that people may edit beside it, as ``sha256sum`` does.

    Not of a device or a pipe, from which nothing is read back.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """
    if is_stream(path):
        return
    digest = sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + BESIDE).write_text(f"{digest}  {path.name}\n", encoding="utf-8")


def changed_since(path: Path) -> str | None:
    """A sentence where a file is not what `note_beside` saw; None without a checksum beside it."""
    try:
        words = path.with_name(path.name + BESIDE).read_text(encoding="utf-8").split()
        if not words or words[0] == sha256(path.read_bytes()).hexdigest():
            return None
    except (OSError, UnicodeDecodeError):
        return None
    return (
        f"{path} is not as convit-ssl wrote it: it was edited, or it is damaged (its checksum is "
        f"in {path.name}{BESIDE})"
    )


def _digest(plain: Mapping[str, Any]) -> str:
    return _of_text(json.dumps(plain, sort_keys=True))


def _of_text(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _crc(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row).encode()):08x}"
