"""Are a file's bytes still those that were written?

A checkpoint has its SHA-256 in a ``.sha256`` file beside it. Files of ``torch.save`` are zip
archives, which carry a CRC-32 of each part. Both are checked once per process, as long as the
file stays as it is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError

CHECKPOINT = re.compile(r"checkpoint_e(\d+)(?:_s(\d+))?\.torch")
_SIDECAR_BYTES = 4096
_BLOCK = 1 << 20


def numbered_checkpoints(folder: Path) -> list[Path]:
    """Regular files with the name of a checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if CHECKPOINT.fullmatch(path.name))
    found = [(_place(path.name), path.name, path) for path in named if path.is_file()]
    return [path for *_, path in sorted(found)]


def whole_checkpoint(place: Path) -> tuple[Path, list[str]] | None:
    """The newest undamaged checkpoint of a run, and what was passed over to get there.

    What was passed over is also said on standard error, once per process.

    Args:
        place: a run folder, its ``checkpoints`` folder, or the ``last.torch`` in there.

    Returns:
        The file and a sentence for each newer one; None where `place` is something else, for
        example a folder without numbered checkpoints.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    folder = place.parent if place.name == "last.torch" else place
    if not numbered_checkpoints(folder):
        folder = folder / "checkpoints"
    candidates = numbered_checkpoints(folder)
    last = folder / "last.torch"
    if last.is_file() and not last.is_symlink():
        candidates.append(last)
    if not candidates or (place.is_file() and not place.is_symlink() and place != last):
        return None
    skipped = missing_newest(last)
    for path in reversed(candidates):
        reason = damage(path)
        if reason is None:
            for sentence in skipped:
                say_once(f"warning: {sentence}; using {path.name} instead")
            newest = not skipped and last.is_symlink() and last.resolve() == path.resolve()
            return (last if newest else path), skipped
        skipped.append(f"{path.name} is damaged ({reason})")
    raise UserError(
        f"every checkpoint in {folder} is damaged: {'; '.join(skipped)}. Copy an undamaged one "
        f"there together with its .sha256 file"
    )


def check_file(path: Path) -> None:
    """Refuse a file of weights whose bytes are not those that were written.

    Raises:
        UserError: names the damage, and a whole checkpoint beside it where there is one.
    """
    reason = damage(path)
    if reason is None:
        return
    others = [other for other in reversed(numbered_checkpoints(path.parent)) if other != path]
    whole = next((other for other in others if damage(other) is None), None)
    way = f"{whole} is not damaged" if whole is not None else "copy or download it again"
    raise UserError(f"{path} is damaged ({reason}); {way}")


def damage(path: Path) -> str | None:
    """What is wrong with the bytes of a file, as far as it can be known; None for nothing."""
    try:
        real = path.resolve(strict=True)
        if not real.is_file():
            return None
        if (stated := _stated(real)) is not None:
            return _differs(real, *stated)
        is_checkpoint = CHECKPOINT.fullmatch(real.name) is not None
        return _archive_damage(str(real), is_checkpoint, *_state(real))
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def stated_damage(path: Path) -> str | None:
    """As `damage`, for a checkpoint that has to have its checksum beside it."""
    try:
        stated = _stated(path)
        if stated is None:
            return f"its checksum {path.with_suffix('.sha256').name} is missing or empty"
        return _differs(path, *stated)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read once per process while the file stays as it is."""
    return _digest_of(str(path), *_state(path))


def digest(path: Path) -> str:
    """SHA-256 of a file, read now."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


@functools.cache
def say_once(text: str) -> None:
    """Print a line on standard error, once per process and in the first process of a group."""
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        print(text, file=sys.stderr, flush=True)


def missing_newest(last: Path) -> list[str]:
    """A sentence for each of the newest checkpoints that is gone, or is not a file."""
    odd = not_files(last.parent)
    if odd or not last.is_symlink() or last.exists():
        return odd
    return [f"the newest checkpoint, {Path(os.readlink(last)).name}, is missing"]


def not_files(folder: Path) -> list[str]:
    """A sentence for each folder, pipe, ... with the name of a checkpoint newer than all files."""
    found = numbered_checkpoints(folder)
    newest = _place(found[-1].name) if found else (-1, -1)
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    odd = sorted(name for name in names if CHECKPOINT.fullmatch(name) and _place(name) > newest)
    return [f"the newest checkpoint, {name}, is {_what(folder / name)}" for name in reversed(odd)]


def _place(name: str) -> tuple[int, int]:
    """Epoch and step in the name of a checkpoint."""
    match = CHECKPOINT.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _what(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a pipe or a device, not a file" if path.exists() else "a link that leads nowhere"


def _differs(path: Path, expected: str, owner: str) -> str | None:
    if CHECKPOINT.fullmatch(owner) and CHECKPOINT.fullmatch(path.name) and owner != path.name:
        return f"the checksum beside it belongs to {owner}"
    return None if digest_of(path) == expected else "its content does not match its checksum"


def _stated(path: Path) -> tuple[str, str] | None:
    """Digest and file name in the ``.sha256`` beside a checkpoint."""
    if path.suffix != ".torch":
        return None
    words: list[str] = []
    with contextlib.suppress(OSError):
        # A pipe of that name would be waited for.
        descriptor = os.open(path.with_suffix(".sha256"), os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                words = file.read(_SIDECAR_BYTES).decode(errors="replace").split()
    if not words:
        return None
    return words[0], words[1] if len(words) > 1 else ""


def _state(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file does."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


@functools.lru_cache(maxsize=64)
def _digest_of(path: str, *state: int) -> str:
    return digest(Path(path))


@functools.lru_cache(maxsize=64)
def _archive_damage(path: str, must_be_archive: bool, *state: int) -> str | None:
    """What the CRCs of a zip archive tell. `state` is that of the file, for the cache."""
    try:
        if not zipfile.is_zipfile(path):
            return "it is cut short or is not a checkpoint" if must_be_archive else None
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.CRC]
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            # Others than torch.save's, which may be small and unpack to anything.
            if not stored or sum(part.file_size for part in parts) > os.path.getsize(path):
                return None
            return next((found for part in parts if (found := _part(archive, part))), None)
    except OSError:
        raise
    except Exception:  # damaged bytes fail in as many ways as there are bytes
        return "its table of contents is damaged"


def _part(archive: zipfile.ZipFile, part: Any) -> str | None:
    """What is wrong with one part."""
    crc = 0
    try:
        with archive.open(part) as file:
            while block := file.read(_BLOCK):
                crc = zlib.crc32(block, crc)
    except (zipfile.BadZipFile, EOFError):
        crc = -1
    # A name from damaged bytes may hold anything.
    return None if crc == part.CRC else f"its part {part.filename[:80]!r} is not as written"
