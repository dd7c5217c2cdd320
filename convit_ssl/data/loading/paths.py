"""What a path names: a file, a member of a tar shard, or something at a URL.

A member is written ``<shard>.tar#<offset>+<size>/<name>``: where its bytes lie in the shard. So
any image of any shard can be read separately, and nothing has to be kept in memory for it.
"""

from __future__ import annotations

import os
import re

_MEMBER = re.compile(r"(.+\.tar)#(\d+)\+(\d+)/")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_seen_shards: set[str] = set()  # those that are files: they are looked at once


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
