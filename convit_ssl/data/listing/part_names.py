"""Names of images in files that hold several, or that lie in several files.

``scan.nii.gz#axial=12`` and ``film.mp4#frame=250`` are one image of a file each.
``a_dapi.tif#+dapi#+a_gfp.tif#+gfp`` is one image of two files, with the names of their channels;
the other files are relative to the folder of the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

JOINT = "#+"
_PART = re.compile(r"(.+)#([a-z]+=[\w:+-]+(?:,[a-z]+=[\w:+-]+)*)", re.DOTALL)


def split_part(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The file, and which image of it is meant; "" for the file as a whole."""
    text = os.fspath(path)
    found = _PART.fullmatch(text) if "#" in text else None
    return (found[1], found[2]) if found else (text, "")


def whole_file(path: str | os.PathLike[str]) -> str:
    """The path of the file that an image lies in."""
    return split_part(path)[0]


def join_files(files: Sequence[tuple[str, str]]) -> str:
    """One path for an image of several files.

    Args:
        files: name of the channel and path, relative to one folder.
    """
    (name, first), *others = files
    here = os.path.dirname(first)
    parts = [first, name]
    for name, path in others:
        parts += [os.path.relpath(path, here or "."), name]
    return JOINT.join(parts)


def split_joined(path: str) -> list[tuple[str, str]]:
    """Name of the channel and path of each file of an image of several."""
    parts = path.split(JOINT)
    here = os.path.dirname(parts[0])
    names, files = parts[1::2], parts[::2]
    return [
        (name, file if not place else os.path.normpath(os.path.join(here, file)))
        for place, (name, file) in enumerate(zip(names, files, strict=True))
    ]


def part_fields(part: str) -> dict[str, str]:
    """``axial=12,t=3`` as a dictionary."""
    return dict(field.split("=", 1) for field in part.split(",")) if part else {}
