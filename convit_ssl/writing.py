"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once it is written and on the disk.

    What is no file, such as a pipe, ``/dev/stdout`` or ``/dev/null``, gets the bytes and stays what
    it is.

    Args:
        path: its folder is made; its ending is kept, for writers that go by it.
    """
    path = Path(path)
    if _is_no_file(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder, path.name)
            partial.touch()
            yield partial
            with partial.open("rb") as written, path.open("wb") as into:
                shutil.copyfileobj(written, into)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
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


def _is_no_file(path: Path) -> bool:
    """Whether a path leads to what must not be replaced. A folder is its user's error."""
    if not os.path.lexists(path):
        return False
    parent = f"{os.path.realpath(path.parent)}/"
    of_the_system = parent.startswith(("/dev/", "/proc/")) and not parent.startswith("/dev/shm/")
    return of_the_system or (path.exists() and not path.is_file() and not path.is_dir())
