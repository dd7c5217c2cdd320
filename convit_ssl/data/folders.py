"""Finding the images of a folder: ``train/<class>/``, ``val/<class>/`` or all in one place."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from convit_ssl.data.names import some
from convit_ssl.errors import UserError

logger = logging.getLogger("convit_ssl.data")

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
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".jp2",
        ".avif",
    )
)


@dataclass(frozen=True)
class Listing:
    """The images under ``root``.

    Attributes:
        root: absolute folder, or URL, that ``files`` are relative to.
        files: paths with ``/``, in sorted order: by class, then by name.
        targets: class number of each file, -1 without label.
        classes: sorted names of the class folders; empty without labels.
    """

    root: Path | str
    files: list[str]
    targets: list[int]
    classes: list[str]

    @property
    def labelled(self) -> bool:
        """Whether the images are in class folders."""
        return bool(self.classes)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of (subfolders, image files) directly in ``folder``; hidden ones left out."""
    folders, images = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                dot = name.rfind(".")
                if dot > 0 and name[dot:].lower() in EXTENSIONS and not _is_folder(entry):
                    # A dangling link counts as an image, and is then reported as unreadable.
                    if entry.is_symlink() or entry.is_file():
                        images.append(name)
                elif _is_folder(entry):
                    folders.append(name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(folders), sorted(images)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _images_below(folder: Path, prefix: str, seen: frozenset[str] = frozenset()) -> list[str]:
    """Every image under ``folder`` as ``prefix`` + relative path; link loops are cut."""
    real = os.path.realpath(folder)
    if real in seen:
        return []
    folders, images = _entries(folder)
    found = [prefix + name for name in images]
    for name in folders:
        found += _images_below(folder / name, f"{prefix}{name}/", seen | {real})
    return found


def list_images(root: Path) -> Listing:
    """List ``root/<class>/**``; images directly in ``root`` make the folder unlabelled.

    Raises:
        UserError: a class folder without images, or no images at all.
    """
    folders, loose = _entries(root)
    if loose:
        if folders:
            logger.warning(
                "%s holds both images and folders: taken as one collection without labels", root
            )
        files = _images_below(root, "")
        return Listing(root, files, [-1] * len(files), [])
    files, targets, empty = [], [], []
    for target, name in enumerate(folders):
        found = _images_below(root / name, f"{name}/")
        if not found:
            empty.append(name)
        files += found
        targets += [target] * len(found)
    if not files:
        raise UserError(
            f"no images in {root}. Looked for {', '.join(sorted(EXTENSIONS))} files, in it and in "
            "its subfolders"
        )
    if empty:
        raise UserError(
            f"class folders without images in {root}: {some(empty)}. Remove them or fill them"
        )
    return Listing(root, files, targets, folders)


def check_folder(path: str | os.PathLike[str]) -> Path:
    """``path`` as an absolute folder. Raises UserError where it is missing or no folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        nearest = next((p for p in folder.absolute().parents if p.is_dir()), Path("/"))
        raise UserError(f"data_dir {folder} does not exist (the nearest folder is {nearest})")
    if not folder.is_dir():
        raise UserError(f"data_dir {folder} is a file; give the folder that holds the images")
    with os.scandir(folder) as entries:
        empty = next(entries, None) is None
    if empty:
        raise UserError(f"data_dir {folder} is empty")
    return folder.absolute()


def _check_same_classes(data_dir: Path) -> None:
    """Compare the class folders of train/ and val/, where both are labelled."""
    sides = {}
    for split in ("train", "val"):
        folders, loose = _entries(data_dir / split)
        if loose or not folders:
            return
        sides[split] = set(folders)
    only_train = sorted(sides["train"] - sides["val"])
    only_val = sorted(sides["val"] - sides["train"])
    if only_train or only_val:
        parts = [
            f"only in {split}/: {some(names)}"
            for split, names in (("train", only_train), ("val", only_val))
            if names
        ]
        raise UserError(
            f"the class folders of train/ and val/ in {data_dir} differ; " + "; ".join(parts)
        )


def _holds_both(folder: Path) -> Path | None:
    """A folder directly below that has train/ and val/, as `folder` itself should."""
    below = (folder / name for name in _entries(folder)[0])
    return next((f for f in below if (f / "train").is_dir() and (f / "val").is_dir()), None)


def find_images(data_dir: str | os.PathLike[str], split: str = "train") -> Listing:
    """The images of one split of ``data_dir``.

    ``data_dir/train`` and ``data_dir/val`` where they exist; else ``data_dir`` itself is
    the training set, with a class per subfolder or, flat, without labels.

    Raises:
        UserError: missing or empty folder, no images, no such split, class folders that
            differ between train and val.
    """
    if split not in ("train", "val"):
        raise UserError(f"split is {split!r}; it is 'train' or 'val'")
    folder = check_folder(data_dir)
    for name in ("train", "val"):
        if (folder / name).is_file():
            raise UserError(f"{folder / name} is a file; it should be the folder of that split")
    has_train, has_val = (folder / "train").is_dir(), (folder / "val").is_dir()
    if not has_train and not has_val and (meant := _holds_both(folder)):
        raise UserError(f"{folder} holds neither train/ nor val/, but {meant} does; give that")
    if split == "val" and not has_val:
        if folder.name == "train" and (folder.parent / "val").is_dir():
            raise UserError(f"{folder} is one split; give {folder.parent}, which holds val/ too")
        raise UserError(
            f"{folder} has no val/ folder, which evaluation needs: put labelled images into "
            f"{folder / 'val'}/<class>/"
        )
    if split == "train" and has_val and not has_train:
        raise UserError(
            f"{folder} has a val/ folder but no train/: add {folder / 'train'}/<class>/"
        )
    if has_train and has_val:
        _check_same_classes(folder)
    return list_images(folder / split if has_train or has_val else folder)
