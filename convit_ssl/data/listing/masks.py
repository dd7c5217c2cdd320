"""Masks of images from a folder: which file belongs to which image, and its classes per pixel."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.reading.pixels import MAX_PIXELS
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.tiff_pages import shown_file
from convit_ssl.errors import UserError

ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".npy")
SUFFIXES = ("", "_mask", "-mask", "_seg", "_label", "_labels")
IGNORED = 255  # by custom the number of pixels that belong to no class
_MOST_CLASSES = 1000
Mask = np.ndarray[Any, np.dtype[np.int64]]


def find_masks(listing: Listing, folder: str | Path, split: str) -> list[str]:
    """The mask of each image: the same path and name in `folder`, whatever the ending.

    ``cat/1.jpg`` of the images of train has its mask in ``FOLDER/train/cat/1.png`` or
    ``FOLDER/cat/1.png``; ``1_mask.png`` is found, too.

    Raises:
        UserError: no such folder, images without a mask, or two masks of one image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--masks {folder}: there is no such folder")
    masks: dict[str, str] = {}
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() not in ENDINGS or name.startswith("."):
                continue
            key = os.path.relpath(os.path.join(place, stem), folder).replace(os.sep, "/")
            if key in masks:
                raise UserError(f"{masks[key]} and {name} are two masks of one image; keep one")
            masks[key] = os.path.join(place, name)
    found, missing = [], []
    for file in listing.files:
        stem = os.path.splitext(file.partition("#")[0])[0]
        keys = [f"{place}{stem}{end}" for place in (f"{split}/", "") for end in SUFFIXES]
        mask = next((masks[key] for key in keys if key in masks), None)
        if mask is None:
            missing.append(file)
        else:
            found.append(mask)
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(listing.files):,} images have no mask in {folder}; the "
            f"first is {missing[0]}. A mask has the path and name of its image: "
            f"{folder}/{os.path.splitext(missing[0])[0]}.png"
        )
    return found


def read_mask(path: str) -> Mask:
    """Class numbers (H, W): a grey, palette or 16-bit image, or an array in a .npy file.

    Raises:
        UserError: it cannot be read, or holds colours and not classes.
    """
    try:
        data = read_bytes(path)
        if path.lower().endswith(".npy"):
            array = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(shown_file(data))) as image:
                    check_size(*image.size, MAX_PIXELS)
                    array = np.asarray(image)
    except Exception as error:  # Pillow raises many kinds
        raise UserError(f"the mask {path} cannot be read: {error}") from error
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[..., :-1]  # transparency says nothing of classes
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim != 2 or (array.dtype.kind == "f" and (array != np.round(array)).any()):
        raise UserError(
            f"the mask {path} holds colours or fractions (shape {array.shape}, {array.dtype}); a "
            "mask holds one class number per pixel: save it as a grey or palette PNG"
        )
    mask: Mask = array.astype(np.int64)
    return mask


def mask_classes(masks: Sequence[Mask], ignored: int | None) -> tuple[list[int], int | None]:
    """The class numbers that occur, and the number that means no class.

    Masks of 0 and 255 alone are of two classes: there 255 is a class, unless `ignored` is given.

    Args:
        masks: all of them.
        ignored: the number that was asked for; None for the custom, 255.

    Raises:
        UserError: fewer than two classes, or too many to be classes.
    """
    numbers: set[int] = set()
    for mask in masks:
        numbers.update(np.unique(mask).tolist())
    if ignored is None:
        ignored = None if numbers <= {0, IGNORED} else IGNORED
    classes = sorted(numbers - {ignored})
    if len(classes) < 2:
        raise UserError(f"the masks contain only one class ({classes}); at least two are needed")
    if len(classes) > _MOST_CLASSES:
        raise UserError(
            f"the masks hold {len(classes):,} numbers; are they photographs or numbers of "
            "instances? A mask holds one class number per pixel"
        )
    return [int(number) for number in classes], ignored


def numbered(mask: Mask, classes: Sequence[int]) -> Mask:
    """A mask with classes 0, 1, ... in place of their numbers, and -1 elsewhere."""
    places = np.searchsorted(classes, mask).clip(max=len(classes) - 1)
    known = np.asarray(classes)[places] == mask
    return np.where(known, places, -1)
