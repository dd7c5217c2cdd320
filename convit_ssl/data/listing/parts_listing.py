"""Files that hold several images, spread out in a listing after it was divided and chosen from.

So all images of a file stay on one side of every split.
"""

from __future__ import annotations

import dataclasses
import os

from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.part_names import split_part
from convit_ssl.data.listing.scenes import tile_size, tiles_of
from convit_ssl.data.notes import note_once
from convit_ssl.data.readers import is_tiff_name, parts_of, reader_by_path
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError


def spread_parts(listing: Listing, reading: Reading) -> Listing:
    """The same listing with ``scan.nii.gz#axial=12`` for each image of a file that holds several.

    A file that cannot be opened stays as it is: it is reported when it is read.

    Raises:
        UserError: ``data.parts`` means nothing for one of the files.
    """
    usual = reading.reader == "auto" and not (reading.tiles or reading.parts)
    if usual and not any(map(reader_by_path, listing.files)):
        return listing
    files: list[str] = []
    targets: list[int] = []
    several = 0
    for file, target in zip(listing.files, listing.targets, strict=True):
        found: list[str] = []
        if not split_part(file)[1]:
            try:
                found = _images_in(os.path.join(listing.root, file), reading)
            except UserError:
                raise
            except Exception:
                # Its first page alone may be whole: the reader of stacks says what is wrong.
                found = ["series=0"] if reading.parts and is_tiff_name(file) else []
        several += bool(found)
        files += [f"{file}#{part}" for part in found] or [file]
        targets += [target] * max(1, len(found))
    if several:
        note_once(
            f"{several:,} files of {listing.root} hold several images each: {len(files):,} in all"
        )
    return dataclasses.replace(listing, files=files, targets=targets)


def _images_in(path: str, reading: Reading) -> list[str]:
    """The images in a file by name: slices, frames, planes or tiles; empty for a file of one.

    Raises:
        UserError: a slide without tissue, or ``data.parts`` that means nothing here.
    """
    found = parts_of(path, reading)
    if found or not tile_size(path, reading):
        return found
    return tiles_of(path, reading)
