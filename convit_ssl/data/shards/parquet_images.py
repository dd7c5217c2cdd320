"""Images in Parquet files, as Hugging Face's hub serves data sets, unpacked once into files.

A column of images holds, for each row, the bytes of a file; labels are numbers whose names stand
in the schema. Bytes in Parquet can only be read a row group at a time, so that drawing images at
random would read hundreds for each. They are therefore written to the cache of data sets once,
unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convit_ssl.checksums import say_once
from convit_ssl.data.listing.split_folders import SPLIT_NAMES
from convit_ssl.data.notes import note_once
from convit_ssl.data.sources.builtin import cache_folder
from convit_ssl.errors import UserError
from convit_ssl.sealed import seal_text, unseal_text

_KINDS = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"II*\0", ".tif"), (b"MM\0*", ".tif"),
          (b"GIF8", ".gif"), (b"BM", ".bmp"))  # fmt: skip
_LABELS = ("label", "labels", "fine_label", "target", "class")


def split_of_file(name: str) -> str | None:
    """The split that a name begins with: ``validation-00000-of-00001`` is val."""
    word = re.split(r"[-_.]", name.lower())[0]
    return next((split for split, words in SPLIT_NAMES.items() if word in words), None)


def unpack(folder: Path, shards: list[Path]) -> Path:
    """Write the images of Parquet files as files, or find them written.

    Returns:
        A folder with the images, and ``rows.json`` with file, label and split of each.

    Raises:
        UserError: they hold no images, or the cache cannot be written.
    """
    state = [(str(s), s.stat().st_size, s.stat().st_mtime_ns) for s in shards]
    name = hashlib.sha256(repr(state).encode()).hexdigest()[:24]
    target = cache_folder() / "parquet" / name
    if (target / "rows.json").is_file():
        if unpacked_rows(target):
            return target
        say_once(f"warning: {target / 'rows.json'} is damaged; unpacking the images again")
        shutil.rmtree(target, ignore_errors=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write to {target.parent} ({error.strerror})") from error
    try:
        rows: list[dict[str, Any]] = []
        for number, shard in enumerate(shards):
            rows += _unpack_one(shard, number, staging, folder)
        (staging / "rows.json").write_text(seal_text(json.dumps(rows)), encoding="utf-8")
        note_once(f"{len(rows):,} images of {folder} were unpacked into {target}")
        try:
            os.rename(staging, target)
        except OSError:
            if not (target / "rows.json").is_file():  # another process was first
                raise
    except OSError as error:
        raise UserError(f"cannot unpack {folder}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def unpacked_rows(root: Path) -> list[dict[str, Any]]:
    """File, label and split of each image that `unpack` wrote; nothing where that is damaged."""
    try:
        rows = json.loads(unseal_text((root / "rows.json").read_text(encoding="utf-8")) or "")
        return rows if all({"file", "label", "split"} <= row.keys() for row in rows) else []
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []


def _unpack_one(shard: Path, number: int, out: Path, folder: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            f"{shard}: Parquet needs pyarrow: pip install 'convit_ssl[tables]'"
        ) from None
    split = split_of_file(shard.name) or split_of_file(shard.parent.name) or "train"
    try:
        file = parquet.ParquetFile(shard)
        image = _image_column(file.schema_arrow)
    except Exception as error:  # pyarrow has kinds of its own
        raise UserError(f"cannot read {shard}: {str(error).splitlines()[0]}") from error
    if image is None:
        raise UserError(
            f"{shard} has no column of images (structs of bytes and path); for a table of paths, "
            "give the file itself: data_dir=table.parquet"
        )
    label = next((n for n in _LABELS if n in file.schema_arrow.names), None)
    names = _class_names(file.schema_arrow, label)
    rows: list[dict[str, Any]] = []
    for batch in _batches(file, [image, *([label] if label else [])], shard):
        for row in batch.to_pylist():
            cell = row[image]
            data = cell["bytes"] if isinstance(cell, dict) else cell
            place = f"{split}/{number:05d}-{len(rows):07d}{_suffix(data, cell)}"
            (out / split).mkdir(exist_ok=True)
            (out / place).write_bytes(data or b"")
            value = row[label] if label else None
            text = None if not label else "-1" if value is None else str(value)
            if names and isinstance(value, int) and 0 <= value < len(names):
                text = names[value]
            rows.append({"file": place, "label": text, "split": split})
    return rows


def _batches(file: Any, columns: list[str], shard: Path) -> Iterator[Any]:
    """A few hundred rows at a time."""
    try:
        yield from file.iter_batches(batch_size=256, columns=columns)
    except GeneratorExit:
        raise
    except Exception as error:  # pyarrow has kinds of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{shard} is damaged: {reason}; copy or download it again") from error


def _image_column(schema: Any) -> str | None:
    """The first column of bytes, or of a struct that has them."""
    import pyarrow.types as types

    for field in schema:
        kind = field.type
        if types.is_struct(kind):
            kind = next(
                (kind[n].type for n in range(kind.num_fields) if kind[n].name == "bytes"), kind
            )
        if types.is_binary(kind) or types.is_large_binary(kind):
            return str(field.name)
    return None


def _class_names(schema: Any, label: str | None) -> list[str]:
    """Names of the classes, as Hugging Face's datasets write them into the schema."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])
        names = known["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names]


def _suffix(data: bytes | None, cell: Any) -> str:
    path = cell.get("path") if isinstance(cell, dict) else None
    own = os.path.splitext(str(path or ""))[1].lower()
    found = next((suffix for magic, suffix in _KINDS if (data or b"").startswith(magic)), "")
    return found or own or ".img"
