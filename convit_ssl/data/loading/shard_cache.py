"""Copies of remote shards on the node's disk.

With ``CONVIT_SSL_SHARD_CACHE=200`` whole shards are kept, up to so many GiB, in the folder of the
built-in data sets; those read longest ago go first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from convit_ssl.data.loading.network import network, remote
from convit_ssl.data.sources.builtin import cache_folder
from convit_ssl.errors import UserError

CACHE_VARIABLE = "CONVIT_SSL_SHARD_CACHE"
# What fsspec's file systems call the version of a file: HTTP, S3, GCS, Azure, SFTP, memory.
_VERSION_KEYS = frozenset(
    [
        "etag",
        "content-md5",
        "content_md5",
        "digest",
        "last-modified",
        "lastmodified",
        "last_modified",
        "mtime",
        "updated",
        "md5hash",
        "created",
        "size",
    ]
)


def cache_bytes() -> int:
    """Room for copies of shards, from ``CONVIT_SSL_SHARD_CACHE``; 0 keeps none.

    Raises:
        UserError: it is not a number.
    """
    text = os.environ.get(CACHE_VARIABLE, "0") or "0"
    try:
        return max(int(float(text) * 2**30), 0)
    except (ValueError, OverflowError):
        raise UserError(
            f"{CACHE_VARIABLE}={text!r} is not a number (expected GiB, for example 200)"
        ) from None


def local_copy(url: str) -> str | None:
    """The copy of a shard on this node's disk, fetched by the first process that asks for it.

    Returns:
        Its path; None if copies are off or there is no room for this one.
    """
    limit = cache_bytes()
    if limit == 0:
        return None
    folder = cache_folder() / "shards"
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = url.rsplit("/", 1)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    version = _version(url)
    with _alone(folder / f".lock-{digest[:2]}"):
        copies = sorted(folder.glob(f"{digest}-*.tar"), key=os.path.getmtime)
        copy = folder / f"{digest}-{version}-{name}"
        if version is None and copies:  # the server does not answer, or does not say
            copy = copies[-1]
        if copy.exists():
            os.utime(copy)
            return str(copy)
        for other in copies:  # of a file that has changed since
            other.unlink(missing_ok=True)
        return str(copy) if _fetch(url, copy, limit) else None


@functools.cache
def _version(url: str) -> str | None:
    """What tells a remote file from another under its name; asked once a process.

    None where the server does not say, or does not answer.
    """
    try:
        with network(url):
            system, place = remote(url)
            about = system.info(place)
    except OSError:
        return None
    told = {str(key): str(about[key]) for key in about if str(key).lower() in _VERSION_KEYS}
    if not told or set(map(str.lower, told)) == {"size"}:
        told = {**told, "size": str(about.get("size"))}
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:12]


def _fetch(url: str, copy: Path, limit: int) -> bool:
    """Write a copy of a shard. False if the disk is full.

    Raises:
        OSError: as `network`.
    """
    partial = copy.with_name(f".{copy.name}.partial")
    try:
        with network(url):
            system, place = remote(url)
            if not _make_room(copy.parent, limit - int(system.size(place) or 0)):
                return False
            system.get_file(place, str(partial))
        os.replace(partial, copy)
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            return False
        raise
    finally:
        partial.unlink(missing_ok=True)
    return True


def _make_room(folder: Path, left: int) -> bool:
    """Delete the copies that were opened longest ago until the rest takes `left` bytes."""
    if left < 0:
        return False
    states = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(OSError):
            state = path.stat()
            states.append((state.st_mtime_ns, state.st_size, path))
    taken = sum(size for _, size, _ in states)
    for _, size, path in sorted(states):
        if taken <= left:
            break
        path.unlink(missing_ok=True)
        taken -= size
    return True


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with open(lock, "a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
