"""Files that hold several images, spread out in a listing after it was divided and chosen from.

So all images of a file stay on one side of every split.
"""

from __future__ import annotations

import dataclasses
import os

from convit_ssl.data.folders import Listing
from convit_ssl.data.notes import note_once
from convit_ssl.data.part_names import split_part
from convit_ssl.data.readers import parts_of, reader_by_name
from convit_ssl.data.value_range import Reading
from convit_ssl.errors import UserError


def spread_parts(listing: Listing, reading: Reading) -> Listing:
    """The same listing with ``scan.nii.gz#axial=12`` for each image of a file that holds several.

    A file that cannot be opened stays as it is: it is reported when it is read.

    Raises:
        UserError: ``data.parts`` means nothing for one of the files.
    """
    if reading.reader == "auto" and not any(map(reader_by_name, listing.files)):
        return listing
    files: list[str] = []
    targets: list[int] = []
    several = 0
    for file, target in zip(listing.files, listing.targets, strict=True):
        found: list[str] = []
        if not split_part(file)[1]:
            try:
                found = parts_of(os.path.join(listing.root, file), reading)
            except UserError:
                raise
            except Exception:
                found = []
        several += bool(found)
        files += [f"{file}#{part}" for part in found] or [file]
        targets += [target] * max(1, len(found))
    if several:
        note_once(
            f"{several:,} files of {listing.root} hold several images each: {len(files):,} in all"
        )
    return dataclasses.replace(listing, files=files, targets=targets)
