"""The bytes of an image: of a file, or of a member of a tar shard; on a disk or at a URL.

URLs are read in ranges, one for each image, unless `shard_cache` keeps the shard on this node.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
from collections.abc import Callable

from convit_ssl.data.listing.part_names import JOINT, split_joined, whole_file
from convit_ssl.data.loading.network import network, remote
from convit_ssl.data.loading.paths import is_url, split_member
from convit_ssl.data.loading.shard_cache import CACHE_VARIABLE, local_copy
from convit_ssl.errors import UserError

_OPEN_SHARDS = 64
_SAMPLE_BYTES = 16 * 1024
MAX_FILE_BYTES = 2**30  # of an image or a list: what is longer is none


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
