"""The bytes of an image: of a file, or of a member of a tar shard; on a disk or at a URL.

A member is written ``<shard>.tar#<offset>+<size>/<name>``: where its bytes lie in the shard. So
any image of any shard can be read separately, and nothing has to be kept in memory for it.

URLs (``s3://``, ``https://``, ``memory://`` and what else fsspec knows) are read in ranges, one
for each image. With ``CONVIT_SSL_SHARD_CACHE=200`` whole shards are kept on the node's disk, up
to so many GiB, in the folder of the built-in data sets; those read longest ago go first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convit_ssl.data.listing.part_names import JOINT, split_joined, whole_file
from convit_ssl.data.sources.builtin import cache_folder
from convit_ssl.errors import UserError

CACHE_VARIABLE = "CONVIT_SSL_SHARD_CACHE"
_MEMBER = re.compile(r"(.+\.tar)#(\d+)\+(\d+)/")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OPEN_SHARDS = 64
_seen_shards: set[str] = set()  # those that are files: they are looked at once
_SAMPLE_BYTES = 16 * 1024
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
MAX_FILE_BYTES = 2**30  # of an image or a list: what is longer is none


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it is read through fsspec."""
    return _URL.match(os.fspath(path)) is not None


def member_path(shard: str, offset: int, size: int, name: str) -> str:
    """The path of a member of a shard."""
    return f"{shard}#{offset}+{size}/{name}"


def split_member(path: str) -> tuple[str, int, int] | None:
    """Shard, offset and size in bytes of a member's path; None for any other path."""
    found = _MEMBER.match(path)
    if found is None or (found[1] not in _seen_shards and _is_folder(found)):
        return None
    return found[1], int(found[2]), int(found[3])


def _is_folder(found: re.Match[str]) -> bool:
    """Whether what looks like a member's place in a shard is a folder of that name."""
    if not is_url(found[1]):
        if os.path.isdir(found[0]):
            return True
        if not os.path.isfile(found[1]):
            return False  # gone for now, perhaps
    _seen_shards.add(found[1])
    return False


def read_bytes(path: str) -> bytes:
    """The bytes of a file or a member.

    Raises:
        OSError: it cannot be read, is no regular file or longer than `MAX_FILE_BYTES`. A
            network's errors are EIO, which is worth another try.
        UserError: a kind of URL that nothing here can read.
    """
    path = whole_file(path)
    _check_name(path)
    member = split_member(path)
    if member is not None:
        return _read_member(*member)
    if is_url(path):
        with network(path):
            system, place = remote(path)
            return bytes(system.cat_file(place))
    descriptor = open_regular(path)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        _check_length(size, path)
        return file.read(size)


def openable(path: str) -> str | io.BytesIO:
    """What Pillow opens for a path: a file by its name, of which it then reads what it needs.

    Raises:
        OSError: as `read_bytes`.
    """
    path = whole_file(path)
    if split_member(path) is not None or is_url(path):
        return io.BytesIO(read_bytes(path))
    _check_name(path)
    state = os.stat(path)
    _check_regular(state, path)
    _check_length(state.st_size, path)
    return path


def open_regular(path: str) -> int:
    """A descriptor of a regular file. A pipe or a device would never come to an end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_name(path: str) -> None:
    if "\0" in path:
        raise OSError(errno.EINVAL, "its name contains a NUL byte", path)


def _check_regular(state: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", path)


def _check_length(size: int, path: str) -> None:
    if size > MAX_FILE_BYTES:
        limit = f"the limit of {MAX_FILE_BYTES / 2**30:g} GiB"
        raise OSError(errno.EFBIG, f"{size:,} bytes are more than {limit}", path)


def is_there(path: str) -> bool:
    """Whether a file, or the shard of a member, is on the disk. URLs are not asked for."""
    path = whole_file(path)
    if JOINT in path:
        return all(is_there(file) for _, file in split_joined(path))
    member = split_member(path)
    place = member[0] if member is not None else path
    return is_url(place) or os.path.lexists(place)


def file_state(path: str) -> tuple[int, int, int, int]:
    """Bytes, nanoseconds of the last change of content and of anything, and inode.

    The second of the times is set by the system alone. -1 for what is not known or not there. Of
    an image of several files, or of a folder (Zarr), the sum and the latest of all its files.
    """
    path = whole_file(path)
    if JOINT in path:
        return _together([file_state(file) for _, file in split_joined(path)])
    member = split_member(path)
    place = member[0] if member is not None else path
    try:
        state = os.stat(place)
    except (OSError, ValueError):  # ValueError of a NUL byte
        return (member[2] if member is not None else -1), -1, -1, -1
    if stat.S_ISDIR(state.st_mode):
        below = [os.path.join(top, name) for top, _, names in os.walk(place) for name in names]
        return _together([file_state(file) for file in sorted(below)])
    size = member[2] if member is not None else state.st_size
    return size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _together(states: list[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """One state for several files; -1 if there are none."""
    if not states:
        return -1, -1, -1, -1
    sizes, changed, touched, nodes = zip(*states, strict=True)
    return sum(sizes), max(changed), max(touched), hash(nodes) & (2**62 - 1)


def sampled_content(path: str) -> bytes:
    """The bytes of a small file; of a longer one its beginning, middle and end.

    Empty where it cannot be read.
    """
    path = whole_file(path)
    if JOINT in path:
        return b"".join(sampled_content(file) for _, file in split_joined(path))
    if os.path.isdir(path):
        # Names and times of a folder's files (Zarr) stand for their content.
        return repr((sorted(os.listdir(path)), file_state(path))).encode()
    try:
        if split_member(path) is not None or is_url(path):
            return read_bytes(path)
        descriptor = open_regular(path)
        with open(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size <= 4 * _SAMPLE_BYTES:
                return file.read(size)
            parts = []
            for place in (0, size // 2, size - _SAMPLE_BYTES):
                file.seek(place)
                parts.append(file.read(_SAMPLE_BYTES))
            return b"".join(parts)
    except (OSError, ValueError, UserError):
        return b""


def remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it. One for each process; never kept over a fork.

    Raises:
        UserError: an unknown kind of URL, or one that needs another package.
    """
    import fsspec  # type: ignore[import-untyped]

    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url} needs another package: {error}") from None
    except ValueError as error:
        raise UserError(f"{url} cannot be read: {error}") from None
    return system, str(place)


@contextlib.contextmanager
def network(url: str) -> Iterator[None]:
    """What goes wrong on the way is EIO, whatever the package calls it.

    Raises:
        FileNotFoundError: the server says that it is not there.
        PermissionError: the server refuses it.
        OSError: EIO for everything else; 503 of a busy server, for one.
        UserError: as it was raised.
        tarfile.TarError: as it was raised; what arrived is no tar file.
    """
    try:
        yield
    except (UserError, PermissionError, tarfile.TarError):
        raise
    except Exception as error:
        status = _http_status(error)
        if isinstance(error, FileNotFoundError) and status is None and not _lost(error.__cause__):
            raise
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        number = _ERRNO_OF_STATUS.get(status or 0, errno.EIO)
        raise OSError(number, f"{type(error).__name__}: {reason[:160]}", url) from error


# What asking again does not change.
_ERRNO_OF_STATUS = {
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ENOENT,
    410: errno.ENOENT,
}


def _http_status(error: BaseException | None) -> int | None:
    """The number with which a server answered, of an error or of what it came from."""
    while error is not None:
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _lost(cause: BaseException | None) -> bool:
    """Whether no answer came. fsspec calls that "not found" where it asks for a file's size."""
    of_network = type(cause).__module__.startswith(("aiohttp", "asyncio"))
    return of_network or isinstance(cause, OSError | TimeoutError)


def _read_member(shard: str, offset: int, size: int) -> bytes:
    _check_length(size, shard)
    try:
        descriptor = _descriptor(shard)
        data = os.pread(descriptor, size, offset) if descriptor is not None else None
    except OSError:
        _descriptor.cache_clear()  # of a disk that was gone for a while
        raise
    if data is None:
        with network(shard):
            system, place = remote(shard)
            data = bytes(system.cat_file(place, start=offset, end=offset + size))
    if len(data) > size:
        raise UserError(
            f"the server of {shard} does not support range requests; cache the shards on this "
            f"node's disk with {CACHE_VARIABLE}=<GiB>"
        )
    if len(data) < size:
        raise OSError(errno.ENODATA, f"the shard is cut short: {len(data)} of {size} bytes", shard)
    return data


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _descriptor(shard: str) -> int | None:
    """An open file to read a shard from; None where it is read over the network.

    Reading at an offset moves nothing, so processes may share what they inherit. A closed shard
    would cost a call to the file system for each image.
    """
    place = local_copy(shard) if is_url(shard) else shard
    if place is None:
        return None
    return _Descriptor(open_regular(place))


class _Descriptor(int):
    """A file descriptor that is closed when nothing uses it any more."""

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        try:
            close(self)
        except OSError:
            return


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
        Its path; None where no copies are kept, or there is no room for this one.
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
