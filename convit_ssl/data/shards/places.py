"""Where the shards of a collection are: in a folder, at a URL, or written out with braces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convit_ssl.data.listing.folders import check_folder
from convit_ssl.data.listing.split_folders import find_splits
from convit_ssl.data.loading.network import network, remote
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.loading.retries import retried
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_SPLIT = {
    "train": re.compile(r"(^|[^a-z])train(ing)?([^a-z]|$)", re.IGNORECASE),
    "val": re.compile(r"(^|[^a-z])val(id(ation)?)?([^a-z]|$)", re.IGNORECASE),
    "test": re.compile(r"(^|[^a-z])test(ing)?([^a-z]|$)", re.IGNORECASE),
}


def list_shards(data_dir: str) -> tuple[Path | str, dict[str, list[str]]]:
    """The folder or URL, and the shards of each split relative to it, sorted.

    Raises:
        UserError: it is not there, or cannot be listed.
    """
    if "{" in data_dir:
        return _written_out(data_dir)
    root: Path | str = data_dir.rstrip("/") if is_url(data_dir) else check_folder(data_dir)
    own = _tars(root, "")
    folders = find_splits(root) if isinstance(root, Path) else {split: split for split in _SPLIT}
    found = {split: _tars(root, folders.get(split, split)) for split in _SPLIT}
    for split, name in _SPLIT.items():
        found[split] = found[split] or [shard for shard in own if name.search(shard)]
    if not found["train"] and not found["val"]:
        found["train"] = own
    elif not found["val"] and found["test"]:
        note_once(f"{data_dir} has no shards of val; those of test stand for them")
        found["val"] = found["test"]
    return root, found


def _written_out(pattern: str) -> tuple[Path | str, dict[str, list[str]]]:
    folder, _, name = pattern.rpartition("/")
    if "{" in folder or not name.endswith(".tar"):
        raise UserError(
            f"{pattern}: braces are only allowed in the file name of the shards, after the last "
            f"/, and it must end in .tar. For train/*.tar and val/*.tar give the folder that "
            f"contains both"
        )
    root: Path | str = folder if is_url(pattern) else check_folder(folder or ".")
    found = {}
    for split in _SPLIT:
        named = name.replace("{split}", split)
        found[split] = [] if named == name and split != "train" else list(_expand(named))
        if split != "train" and found[split] and not _is_there(root, found[split][0]):
            found[split] = []
    return root, found


def _expand(name: str) -> Iterator[str]:
    """``a-{000..012}.tar`` to its names, as a shell does."""
    braces = _RANGE.search(name)
    if braces is None:
        yield name
        return
    first, last = braces[1], braces[2]
    for number in range(int(first), int(last) + 1):
        text = str(number).zfill(len(first))
        yield from _expand(name[: braces.start()] + text + name[braces.end() :])


def _is_there(root: Path | str, shard: str) -> bool:
    if isinstance(root, Path):
        return (root / shard).exists()
    try:
        retried(lambda: shard_info(f"{root}/{shard}"))
    except (FileNotFoundError, PermissionError):
        return False
    except OSError as error:
        raise UserError(f"the shard {root}/{shard} cannot be read: {words(error)}") from error
    return True


def shard_info(place: str) -> dict[str, Any]:
    """What a file system says of a shard: ``size`` in bytes, and when it was changed.

    Raises:
        OSError: it is not there, or cannot be asked for.
    """
    if not is_url(place):
        state = os.stat(place)
        times = {"mtime": state.st_mtime_ns, "ctime": state.st_ctime_ns}
        return {"size": state.st_size, "inode": state.st_ino, **times}
    with network(place):
        system, path = remote(place)
        return dict(system.info(path))


def _tars(root: Path | str, folder: str) -> list[str]:
    """Names of the shards directly in a folder, sorted."""
    prefix = f"{folder}/" if folder else ""
    if isinstance(root, Path):
        place = root / folder
        names = os.listdir(place) if place.is_dir() else []
        names = [name for name in names if not (place / name).is_dir()]
    else:
        try:
            paths = retried(lambda: _ls(f"{root}/{folder}"))
            names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise UserError(
                f"{root}/{folder} cannot be listed ({words(error)}); "
                "write the names out: data_dir='https://.../name-{split}-{0000..0146}.tar'"
            ) from None
    return sorted(prefix + name for name in names if name.endswith(".tar") and name[0] != ".")


def _ls(url: str) -> list[str]:
    with network(url):
        system, place = remote(url)
        return [str(path) for path in system.ls(place, False)]


def words(error: Exception) -> str:
    """What an error says, in a line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
