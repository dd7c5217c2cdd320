"""Tables of contents of shards, kept in a file with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from convit_ssl.checksums import say_once

# Name, offset, size in bytes, label.
Entry = tuple[str, int, int, str | None]


def read_table(path: Path) -> list[list[Entry]] | None:
    """The contents of each shard, where the file is there and as it was written."""
    if not path.exists():
        return None
    try:
        digest, found = json.loads(path.read_text())
        contents: list[list[Entry]] = [[(n, o, s, t) for n, o, s, t in part] for part in found]
        sizes = [number for part in contents for _, o, s, _ in part for number in (o, s)]
        if digest == _digest(contents) and all(n >= 0 for n in sizes):
            return contents
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    say_once(f"warning: {path} is damaged; reading the contents of the shards again")
    return None


def write_table(path: Path, contents: list[list[Entry]]) -> None:
    """Keep the contents of each shard. Only one process at a time may write a file.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps([_digest(contents), contents]))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _digest(contents: list[list[Entry]]) -> str:
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()
