"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def real_place(path: Path) -> Path:
    """Where links lead, so that a file behind one is replaced and not the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
_OPEN = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def _opened(path: Path) -> int | None:
    """The number of what this process has open already, which may be a regular file."""
    found = _OPEN.fullmatch(str(path))
    return int(found[1]) if found else _STANDARD.get(str(path))


def is_stream(path: Path) -> bool:
    """Whether bytes go through what is there: a device, a pipe, or ``/dev/stdout``."""
    if _opened(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def into_stream(path: Path, name: str) -> Iterator[Path]:
    """A file elsewhere, whose bytes are written into a device or a pipe once it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / name
        partial.touch()
        yield partial
        number = _opened(path)  # its own position in a file is kept
        target = path if number is None else os.dup(number)
        with partial.open("rb") as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once it is written and on the disk.

    A link is followed. What is a device or a pipe stays one: it gets the bytes of the whole file.

    Args:
        path: its folder is made; its ending is kept, for writers that go by it.
    """
    path, name = Path(path), Path(path).name
    if is_stream(path):
        with into_stream(path, name) as partial:
            yield partial
        return
    path = real_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, taken = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.", suffix=Path(name).suffix
    )
    os.close(handle)
    partial = Path(taken)
    try:
        yield partial
        # mkstemp makes private files; this one is as public as the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
