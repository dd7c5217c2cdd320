"""Walking folders of images: what is read, what is left aside, and what cannot be read."""

from __future__ import annotations

import functools
import os
import stat
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convit_ssl.data.listing.names import some
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.notes import note_once
from convit_ssl.data.readers import PAIR, READERS, START, SUFFIXES, Reader, reader_by_name
from convit_ssl.errors import UserError

EXTENSIONS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pam",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".jp2",
        ".avif",
    )
)
# What systems and programs leave beside images: thumbnails, resource forks, trash.
_NOT_OURS = frozenset(
    ("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found")
) | {"system volume information"}
# Files that stand beside images and are none. Any other suffix is counted and said.
_BESIDE = (
    frozenset(("", ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".parquet"))
    | frozenset((".xls", ".xlsx", ".ods", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log"))
    | frozenset((".html", ".htm", ".py", ".ipynb", ".sh", ".db", ".sqlite", ".lock", ".url"))
    | frozenset((".sha256", ".md5", ".torrent", ".lnk"))
)
_HINTS = {
    (".tar",): "use data=shards to read WebDataset shards",
    (".zip", ".tgz", ".gz", ".7z", ".rar"): "unpack archives first",
}


@dataclass(frozen=True)
class Entries:
    """What lies directly in a folder, sorted.

    Attributes:
        folders: names of subfolders.
        images: names of files that are read.
        unread: other files, counted by suffix.
        alone: arrays, which are images where a folder holds nothing else, and are listed then.
        linked: names of images and folders that are symbolic links.
        inodes: by name, as the folder's own entries give them; no file is opened for it.
    """

    folders: list[str]
    images: list[str]
    unread: Counter[str]
    alone: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    inodes: dict[str, int] = field(default_factory=dict)


@dataclass
class Walk:
    """What walking folders found beside the paths of their images.

    Attributes:
        unread: other files, counted by suffix.
        linked: whether anything is a symbolic link.
        inodes: one for each image, in the order of the paths.
    """

    unread: Counter[str] = field(default_factory=Counter)
    linked: bool = False
    inodes: array[int] = field(default_factory=lambda: array("Q"))


def entries(folder: Path) -> Entries:
    """Subfolders, image files, and other files counted by suffix; hidden ones left out.

    Raises:
        UserError: the folder cannot be read.
    """
    found = Entries([], [], Counter())
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                if not entry.name.startswith(".") and entry.name.lower() not in _NOT_OURS:
                    _sort_in(entry, found)
                    found.inodes[entry.name] = entry.inode()
                    if entry.is_symlink():
                        found.linked.append(entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not found.images and not found.folders:
        found.images.extend(found.alone)
    else:
        for name in found.alone:
            found.unread[name[name.rfind(".") :].lower()] += 1
    found.folders.sort()
    found.images.sort()
    return found


def _sort_in(entry: os.DirEntry[str], found: Entries) -> None:
    dot = entry.name.rfind(".")
    suffix = entry.name[dot:].lower() if dot > 0 else ""
    if _is_folder(entry):
        if not _is_zarr(entry):
            found.folders.append(entry.name)
        elif READERS["zarr"].installed:
            found.images.append(entry.name)
        else:
            found.unread[".zarr"] += 1
    elif entry.name.lower().endswith(PAIR):
        _sort_in_pair(entry, found)
    elif suffix in EXTENSIONS or is_image_file(entry.name) or _is_bare_dicom(entry, suffix):
        # A dangling link counts as an image, and is then reported as unreadable.
        if entry.is_symlink() or entry.is_file():
            found.images.append(entry.name)
    elif (array := reader_by_name(entry.name)) is not None and array.alone:
        found.alone.append(entry.name)
    elif suffix not in _BESIDE:
        reader = reader_by_name(entry.name)
        found.unread[suffix if reader is None else _reader_suffix(reader, entry.name)] += 1


def _sort_in_pair(entry: os.DirEntry[str], found: Entries) -> None:
    """NIfTI in two files: that of the voxels is the image; where it is missing, the header."""
    suffix = next(one for one in PAIR if entry.name.lower().endswith(one))
    stem, ending = entry.path[: -len(suffix)], entry.path[-len(suffix) :]
    is_header = suffix.startswith(".hdr")
    other = ".img" if is_header else ".hdr"
    partner = f"{stem}{other.upper() if ending[1:4].isupper() else other}{ending[4:]}"
    reader = READERS["nifti"]
    if not _claimed_by(reader, entry.path if is_header else partner):
        found.unread[suffix] += 1
    elif is_header and os.path.exists(partner):
        return
    elif reader.installed:
        found.images.append(entry.name)
    else:
        found.unread[suffix] += 1


def _claimed_by(reader: Reader, path: str) -> bool:
    """Whether a file is of a reader's format by its first bytes."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return reader.claims(file.read(START))
    except OSError:
        return False


def is_image_file(name: str) -> bool:
    """Whether a file, by its name, is of a format beyond Pillow's whose reader is installed."""
    reader = reader_by_name(name)
    return reader is not None and reader.installed and not reader.alone


def _reader_suffix(reader: Reader, name: str) -> str:
    return max((s for s in reader.suffixes if name.lower().endswith(s)), key=len)


def _is_bare_dicom(entry: os.DirEntry[str], suffix: str) -> bool:
    """DICOM files often have no suffix, or one that is a part of a number."""
    reader = READERS["dicom"]
    if (suffix and not suffix[1:].isdigit()) or not reader.installed:
        return False
    return _claimed_by(reader, entry.path)


def _is_zarr(entry: os.DirEntry[str]) -> bool:
    """A folder that is one image: called so, and with the files that say what lies in it."""
    return entry.name.lower().endswith(".zarr") and any(
        os.path.isfile(os.path.join(entry.path, name))
        for name in ("zarr.json", ".zarray", ".zgroup")
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def images_below(
    folder: Path, prefix: str, walk: Walk, seen: frozenset[str] = frozenset()
) -> list[str]:
    """Every image under ``folder`` as ``prefix`` + relative path; link loops are cut.

    Args:
        folder: where to look.
        prefix: of the paths.
        walk: gets what else is found.
        seen: the folders above, resolved.
    """
    real = os.path.realpath(folder)
    if real in seen:
        return []
    here = entries(folder)
    walk.unread.update(here.unread)
    walk.linked = walk.linked or bool(here.linked)
    walk.inodes.extend(here.inodes[name] for name in here.images)
    found = [prefix + name for name in here.images]
    for name in here.folders:
        found += images_below(folder / name, f"{prefix}{name}/", walk, seen | {real})
    return found


def holds_images(folder: Path, depth: int = 2) -> bool:
    """Whether there is an image in a folder or a few levels below."""
    here = entries(folder)
    deeper = depth > 0 and any(holds_images(folder / name, depth - 1) for name in here.folders)
    return bool(here.images) or deeper


def say_unread(root: Path, unread: Counter[str], images: int) -> None:
    """Say which files beside the images are in formats that are not read."""
    if unread:
        kinds = _counted(unread)
        note_once(f"not read in {root}, beside {images:,} images: {kinds}{_hint(unread)}")


def what_lies_there(unread: Counter[str]) -> str:
    """For the message about a folder without images; empty where it holds nothing else."""
    if not unread:
        return ""
    return f". It holds {_counted(unread)}, which cannot be read{_hint(unread)}"


def _counted(unread: Counter[str]) -> str:
    kinds = [
        f"{count:,} {suffix} {'file' if count == 1 else 'files'}"
        for suffix, count in unread.most_common(8)
    ]
    if len(unread) > 8:
        kinds.append(f"files with {len(unread) - 8} other suffixes")
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _hint(unread: Counter[str]) -> str:
    hints = [text for suffixes, text in _HINTS.items() if any(s in unread for s in suffixes)]
    for suffix, reader in SUFFIXES.items():
        if suffix in unread and not reader.installed:
            hints.append(f"{suffix} files are read after {reader.advice}")
    if any(suffix in unread for suffix in PAIR):
        needs = "" if READERS["nifti"].installed else f", after {READERS['nifti'].advice}"
        hints.append(f"of .hdr and .img files, only NIfTI pairs are read{needs}")
    return f" ({'; '.join(hints)})" if hints else ""


def same_file(path: str, folder: str) -> str:
    """What two ways to name one file have in common: dots, symbolic links anywhere, hard links.

    One look at the file system for each file, and one for each folder.
    """
    if is_url(path):
        return path
    # Dots in a folder's name are for the file system: a/.. may lie elsewhere where a is a link.
    inner, name = os.path.split(os.path.join(folder, path))
    place = os.path.join(_real_folder(inner), name)
    try:
        state = os.lstat(place)
        if stat.S_ISLNK(state.st_mode):
            place = os.path.realpath(place)
            state = os.lstat(place)
    except (OSError, ValueError):  # missing: whoever reads it says so
        return place
    # Hard links are one file under several names, none of which is its own.
    linked = state.st_nlink > 1 and state.st_ino and stat.S_ISREG(state.st_mode)
    return f"{state.st_dev}:{state.st_ino}" if linked else place


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def say_shared(train: Sequence[str], val: Sequence[str], root: str) -> None:
    """Say which files of val are also in train: figures on them mean nothing."""
    known = {same_file(path, root) for path in train}
    shared = [path for path in val if same_file(path, root) in known]
    if shared:
        note_once(
            f"{len(shared):,} of {len(val):,} images of val are also in train, in {root}: "
            f"{some(shared, 3)}. Accuracy on them says nothing about new images"
        )
