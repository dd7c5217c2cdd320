"""What all images of a collection are, by their headers, and by their pixels where it matters.

Steps that lose something (one grey channel in place of three, what becomes black and white) never
follow from a sample. Headers are cheap; pixels are read of files of more than 8 bits alone. What
was found of a file is kept in the user's cache, by its path, size and times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from convit_ssl.checksums import say_once
from convit_ssl.data.listing.part_names import whole_file
from convit_ssl.data.loading.paths import is_url, split_member
from convit_ssl.data.loading.retries import may_pass, retried
from convit_ssl.data.reading.common_range import judge
from convit_ssl.data.reading.pixels import image_header, image_range
from convit_ssl.data.reading.raw_image import ImageHeader
from convit_ssl.data.reading.value_range import Range, Reading
from convit_ssl.machine import available_cores, user_cache
from convit_ssl.sealed import seal_text, unseal_text, was_never_sealed

logger = logging.getLogger("convit_ssl.data")

# Collections of more than this are not asked for the headers of files that have 8 bits by their
# format, unless all of a sample are grey.
EVERY_HEADER = 100_000
_EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp")
_THREADS = 16  # a network disk answers many at once
_AT_ONCE = 1000
_VERSION = 2  # of what is kept
WORTH_KEEPING = 1.0  # seconds that it took
_COLLECTIONS = 50  # that are kept, the latest

Progress = Callable[[int, int], None]
Record = tuple[ImageHeader, Range | None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Survey:
    """What is known of all images of a collection.

    Attributes:
        sizes: (height, width) of the images whose headers were read.
        grey: whether every image is stored without colour.
        reading: the ranges of values that become black to white, one for all images; none for a
            kind of number of which the collection mixes several depths.
        warnings: what somebody should know before training, in sentences.
    """

    sizes: list[tuple[int, int]]
    grey: bool
    reading: Reading
    warnings: tuple[str, ...] = ()


def survey(
    root: str,
    paths: Sequence[str],
    sample: Sequence[ImageHeader],
    progress: Progress | None = None,
    ranges: bool = True,
) -> Survey:
    """Read the headers of a collection, and the pixels of what has more than 8 bits.

    Args:
        root: folder of the collection, for the cache.
        paths: of all images.
        sample: headers of some of them.
        progress: called with the number of files done and in all.
        ranges: whether 8 bits are made of them, so that the pixels matter.
    """
    grey = bool(sample) and all(header.grey for header in sample)
    asked = list(paths)
    if (len(paths) > EVERY_HEADER or is_url(root)) and not grey:
        asked = [path for path in paths if not path.lower().endswith(_EIGHT_BITS)]
    records = _Records(root, ranges)
    found = records.read(asked, progress)
    headers = [record[0] for record in found] or list(sample)
    grey = grey and all(header.grey for header in headers)
    extents: dict[str, list[tuple[Range, str]]] = {}
    for header, extent in found:
        if header.kind != "8 bits" and extent is not None and ranges:
            extents.setdefault(header.kind, []).append((extent, header.mode))
    sizes = [(header.height, header.width) for header in headers]
    return Survey(sizes, grey, *judge(extents))


class _Records:
    """What was found of the files of a collection, now and before."""

    def __init__(self, root: str, ranges: bool = True) -> None:
        self.ranges = ranges
        name = hashlib.sha256(os.path.abspath(root).encode("utf-8", "surrogateescape")).hexdigest()
        self.path = user_cache() / "surveys" / f"{name[:24]}.json"
        self._patient = True
        self._large = threading.BoundedSemaphore(available_cores())  # whole images in memory
        self.known = self._kept()

    def _kept(self) -> dict[str, list[Any]]:
        """What an earlier start found; nothing where the file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            sealed = self.path.read_text(encoding="utf-8")
            if was_never_sealed(sealed):
                return {}  # of an earlier version
            text = unseal_text(sealed)
            if text is not None:
                kept = json.loads(text)
                return dict(kept["files"]) if kept["version"] == _VERSION else {}
        if self.path.exists():
            say_once(f"warning: {self.path} is damaged; reading the headers of the images again")
        return {}

    def read(self, paths: Sequence[str], progress: Progress | None) -> list[Record]:
        """What is known of all these files that can be read."""
        began = time.perf_counter()
        asked = set(paths)  # the cache may know other files, of another subset
        new = {path: entry for path, entry in self.known.items() if path not in asked}
        found: list[Record] = []
        shards: dict[str, list[int] | None] = {}
        # Threads that each silence warnings would leave them silenced.
        with (
            warnings.catch_warnings(),
            ThreadPoolExecutor(min(_THREADS, 4 * available_cores())) as pool,
        ):
            for start in range(0, len(paths), _AT_ONCE):
                part = paths[start : start + _AT_ONCE]
                for path, (stamp, record) in zip(
                    part, pool.map(partial(self._one, shards), part), strict=True
                ):
                    if record is not None:
                        found.append(record)
                        if stamp is not None:
                            new[path] = [*stamp, *_packed(record)]
                if progress is not None:
                    progress(start + len(part), len(paths))
        changed = any(self.known.get(path) != entry for path, entry in new.items())
        if changed and self.ranges and time.perf_counter() - began > WORTH_KEEPING:
            self._keep(new)
        return found

    def _one(
        self, shards: dict[str, list[int] | None], path: str
    ) -> tuple[list[int] | None, Record | None]:
        stamp = _stamp(path, shards)
        known = self.known.get(path)
        if stamp is not None and known is not None and known[:3] == stamp:
            with contextlib.suppress(TypeError, ValueError):
                return stamp, _unpacked(known[3:])
        try:
            header = self._asked(image_header, path)
            extent = None
            if header.kind != "8 bits" and self.ranges:
                with self._large:
                    extent = self._asked(image_range, path)
        except Exception:  # it is reported, and counts, when it is read
            return stamp, None
        return stamp, (header, extent)

    def _asked(self, read: Callable[[str], Found], path: str) -> Found:
        """What a file gives, asked for again where its file system may answer later."""
        if not self._patient:
            return read(path)
        try:
            return retried(partial(read, path))
        except OSError as error:
            self._patient = not may_pass(error)  # one that does not answer is not asked for each
            raise

    def _keep(self, files: Mapping[str, list[Any]]) -> None:
        text = json.dumps({"version": _VERSION, "files": files}, separators=(",", ":"))
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, partial_name = tempfile.mkstemp(dir=self.path.parent, suffix=".partial")
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(seal_text(text))
                os.replace(partial_name, self.path)
                kept = sorted(
                    self.path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime
                )
                for old in kept[:-_COLLECTIONS]:
                    old.unlink(missing_ok=True)
            except OSError:
                Path(partial_name).unlink(missing_ok=True)
                raise


def _stamp(path: str, shards: dict[str, list[int] | None]) -> list[int] | None:
    """Size and times of a file, or of the shard that it lies in; None if there are none."""
    path = whole_file(path)
    member = split_member(path)
    place = path if member is None else member[0]
    if is_url(place):
        return None
    if member is not None and place in shards:
        return shards[place]
    stamp = None
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(place)
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    if member is not None:
        shards[place] = stamp
    return stamp


def _packed(record: Record) -> list[Any]:
    header, extent = record
    pair = list(extent) if extent else None
    return [header.height, header.width, header.grey, header.kind, header.mode, pair]


def _unpacked(entry: list[Any]) -> Record:
    *header, extent = entry
    return ImageHeader(*header), None if extent is None else tuple(extent)
