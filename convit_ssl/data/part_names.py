"""Names of images in files that hold several: ``scan.nii.gz#axial=12``, ``film.mp4#frame=250``."""

from __future__ import annotations

import os
import re

_PART = re.compile(r"(.+)#([a-z]+=[\w:+-]+(?:,[a-z]+=[\w:+-]+)*)", re.DOTALL)


def split_part(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The file, and which image of it is meant; "" for the file as a whole."""
    text = os.fspath(path)
    found = _PART.fullmatch(text) if "#" in text else None
    return (found[1], found[2]) if found else (text, "")


def whole_file(path: str | os.PathLike[str]) -> str:
    """The path of the file that an image lies in."""
    return split_part(path)[0]


def part_fields(part: str) -> dict[str, str]:
    """``axial=12,t=3`` as a dictionary."""
    return dict(field.split("=", 1) for field in part.split(",")) if part else {}
