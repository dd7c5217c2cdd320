"""WebDataset tar shards as a collection of images that can be read in any order.

A shard is an uncompressed tar file in which the files of a sample stand together and share
their name up to its first dot: ``0001.jpg`` and, where there are labels, ``0001.cls`` with a
number or a name as text. The tables of contents are read once and kept; nothing is unpacked, and
nothing but plain text is read beside the images.

``data_dir`` is a folder or a URL with ``train/*.tar`` and ``val/*.tar``; or with ``*.tar`` files
that have train and val in their names; or with shards of train alone. Where a server lists
nothing, the names are written out: ``https://host/imagenet-{split}-{0000..0146}.tar``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from convit_ssl.data.listing.folders import EXTENSIONS, Listing
from convit_ssl.data.listing.labels import check_known, class_table, say_absent, targets_of
from convit_ssl.data.loading.network import network, remote
from convit_ssl.data.loading.paths import is_url, member_path
from convit_ssl.data.loading.retries import retried
from convit_ssl.data.loading.shard_cache import local_copy
from convit_ssl.data.loading.storage import open_regular, sampled_content
from convit_ssl.data.shards.places import list_shards, shard_info, words
from convit_ssl.data.shards.samples import images_of_samples, say_aside
from convit_ssl.data.shards.tables import Entry, read_table, write_table
from convit_ssl.data.sources.builtin import cache_folder
from convit_ssl.errors import UserError

_LABEL_BYTES = 1024
_THREADS = 8
_WORTH_A_WORD = 32  # shards whose first reading takes a while


def find_shards(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images in the shards of one split.

    Raises:
        UserError: no shards, a damaged or compressed one, one without images, or images of
            which only some have labels.
    """
    root, shards = list_shards(str(data_dir))
    if not shards[split]:
        raise UserError(
            f"no .tar shards for {split} in {data_dir}: looked for {split}/*.tar, *{split}*.tar"
            + (" and *.tar" if split == "train" else "")
        )
    contents = {
        name: _samples(_contents(root, shards[name]), f"the {name} shards of {data_dir}")
        for name in dict.fromkeys(("train", "val", split))
    }
    labels = {
        name: [entry[3] for part in parts for entry in part] for name, parts in contents.items()
    }
    for name in labels:
        check_known(labels["train"], labels[name], str(data_dir))
    given = (label for part in labels.values() for label in part if label is not None)
    classes = class_table(given, str(data_dir))
    files, own = [], []
    for shard, entries in zip(shards[split], contents[split], strict=True):
        for name, offset, size, label in entries:
            files.append(member_path(shard, offset, size, name))
            own.append(label)
    targets = targets_of(own, classes, f"the {split} shards of {data_dir}")
    if split != "train" and own[0] is not None:
        say_absent(targets, classes, split, f"the {split} shards of {data_dir}")
    return Listing(root, files, targets, classes if own[0] is not None else [])


def _samples(contents: list[list[Entry]], where: str) -> list[list[Entry]]:
    """The images of each shard, without masks and the like, which are said."""
    kept, aside = [], Counter[str]()
    for entries in contents:
        images, others = images_of_samples(entries)
        kept.append(images)
        aside += others
    say_aside(aside, sum(map(len, kept)), where)
    return kept


def _contents(root: Path | str, shards: Sequence[str]) -> list[list[Entry]]:
    """The tables of contents, from the copy that is kept or from the shards themselves."""
    if not shards:
        return []
    places = [f"{root}/{shard}" for shard in shards]
    with ThreadPoolExecutor(_THREADS) as pool:
        states = list(pool.map(_state, places))
    digest = hashlib.sha256(json.dumps([places, states]).encode()).hexdigest()[:24]
    folder = cache_folder() / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Reading a shard takes a lock of its own in this folder, so not one of those names.
        lock = open(folder / f".lock-contents-{digest[:2]}", "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); choose another folder with the "
            f"environment variable CONVIT_SSL_DATA"
        ) from error
    kept = folder / f"contents-{digest}.json"
    with lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)  # one process of a node reads for all
        if (found := read_table(kept)) is not None:
            return found
        if len(shards) >= _WORTH_A_WORD:
            print(f"reading the contents of {len(shards):,} shards, once", file=sys.stderr)
        with ThreadPoolExecutor(_THREADS) as pool:
            contents = list(pool.map(read_contents, places))
        write_table(kept, contents)
    return contents


def _state(place: str) -> list[str]:
    """What changes when a shard does: its size, and the times or the tag its server gives."""
    try:
        about = retried(lambda: shard_info(place))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the shard {place} cannot be read: {words(error)}") from error
    keys: tuple[str, ...] = ("size", "mtime", "LastModified", "ETag")
    if not is_url(place):  # the bytes under the same size and time may be others
        about["bytes"] = hashlib.sha256(sampled_content(place)).hexdigest()
        keys = ("size", "mtime", "ctime", "inode", "bytes")
    return [str(about.get(key)) for key in keys]


def read_contents(place: str) -> list[Entry]:
    """The images of one shard with their labels.

    Raises:
        UserError: it cannot be read, is damaged or compressed, or holds no images.
    """
    try:
        entries = retried(lambda: _listed(place))
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            raise UserError(f"the shard {place} cannot be read: {words(error)}") from error
        raise UserError(
            f"the shard {place} is incomplete, or not an uncompressed tar file ({words(error)}); "
            f"copy "
            "or download it again"
        ) from error
    if not entries:
        raise UserError(f"the shard {place} holds no images ({', '.join(sorted(EXTENSIONS))})")
    return entries


def _listed(place: str) -> list[Entry]:
    with (
        network(place) if is_url(place) else contextlib.nullcontext(),
        _opened(place) as file,
        tarfile.open(fileobj=file, mode="r:") as archive,
    ):
        return _entries(archive, place)


def _opened(place: str) -> Any:
    copy = local_copy(place) if is_url(place) else place
    if copy is not None:
        return open(open_regular(copy), "rb")
    system, path = remote(place)
    return system.open(path, "rb", block_size=2**22, cache_type="readahead")


def _entries(archive: tarfile.TarFile, place: str) -> list[Entry]:
    images: list[tuple[str, str, int, int]] = []
    labels: dict[str, str] = {}
    for member in archive:
        if member.size < 0:  # which would lead back to where it began
            raise tarfile.ReadError(f"the size of {member.name} is negative")
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if not member.isfile() or member.issparse() or not stem or "__MACOSX" in folder:
            continue
        key = f"{folder}/{stem}"
        if f".{extension.rpartition('.')[2].lower()}" in EXTENSIONS:
            images.append((key, member.name, member.offset_data, member.size))
        elif extension == "cls":
            label = _label(archive, member, place)
            if labels.setdefault(key, label) != label:
                raise UserError(
                    f"{member.name} is in the shard {place} twice, as {labels[key]} and as "
                    f"{label}; an image has one class"
                )
    return [(name, offset, size, labels.get(key)) for key, name, offset, size in images]


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> str:
    file = archive.extractfile(member)
    data = file.read(_LABEL_BYTES) if file is not None else b""
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) == _LABEL_BYTES or "\n" in text:
        raise UserError(
            f"the label {member.name} in the shard {place} is not a line of text: a .cls file "
            f"holds the number or name of a class"
        )
    return text
