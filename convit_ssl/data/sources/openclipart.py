"""Drawings of Debian's package openclipart-png, in classes by subject (public domain).

A class is a subject of the second level with 40 drawings or more, such as ``animals/birds``;
icons, shapes, flags and abstract patterns are left out. Drawings of one author and of one series
look alike, and would tell where they belong if some were in train and others in val. File names
end in the author's name, cut off at some length, and a number: `group_of` reads them, and whole
groups go to train, val or test (60, 20, 20 %).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from convit_ssl.data.listing.parts import assign
from convit_ssl.data.sources.hashed import SHARES, Copy
from convit_ssl.errors import UserError

LEAST = 40  # drawings of a class
MOST_PIXELS = 50_000_000
LEFT_OUT = ("computer/icons", "signs_and_symbols/flags")
LEFT_OUT_SUBJECTS = ("shapes", "special", "unsorted")
DEBIAN_FOLDER = Path("/usr/share/openclipart/png")
HOW_TO_GET = (
    "openclipart: install Debian's or Ubuntu's package openclipart-png (apt install "
    "openclipart-png), or unpack it anywhere, without root: apt-get download openclipart-png && "
    "dpkg -x openclipart-png_*.deb clipart, and give --data-dir clipart/usr/share/openclipart/png"
)
_NUMBER = re.compile(r"[-_ ]*\d*[-_ ]*$")
_WORDS = re.compile(r"[a-z]{4,}")
_FREQUENT = 3  # files under several titles that an author's name ends
_CUT = 22  # letters of a name from which on its last word may be cut off


def copies(data_dir: str | os.PathLike[str] | None = None) -> list[Copy]:
    """Every drawing with its place in the split.

    Args:
        data_dir: the folder with animals/, food/ and so on; by default Debian's.

    Raises:
        UserError: it is not there.
    """
    folder = Path(data_dir).expanduser() if data_dir else DEBIAN_FOLDER
    if not (folder / "animals").is_dir():
        raise UserError(f"no drawings in {folder}. {HOW_TO_GET}")
    classes = find_classes(folder)
    files = [(name, path) for name, paths in classes.items() for path in paths]
    groups = group_of([path.stem for _, path in files])
    names = sorted(set(groups))
    number = {name: position for position, name in enumerate(names)}
    labels = list(classes)
    parts, _ = assign(
        [str(path.relative_to(folder)) for _, path in files],
        np.array([labels.index(name) for name, _ in files]),
        np.array([number[group] for group in groups]),
        names,
        [share for _, share in SHARES],
        seed=0,
        holdout=False,
    )
    found = []
    for (name, path), part in zip(files, parts, strict=True):
        inside = "__".join(path.relative_to(folder).parts[2:])
        found.append(Copy(SHARES[max(int(part), 0)][0], f"{name}/{inside}", path))
    return found


def find_classes(folder: Path) -> dict[str, list[Path]]:
    """Name -> drawings, sorted, of the subjects with enough of them."""
    classes = {}
    for subject in sorted(path for path in folder.iterdir() if path.is_dir()):
        for part in sorted(path for path in subject.iterdir() if path.is_dir()):
            if subject.name in LEFT_OUT_SUBJECTS or f"{subject.name}/{part.name}" in LEFT_OUT:
                continue
            drawings = sorted(path for path in part.rglob("*.png") if _is_small(path))
            if len(drawings) >= LEAST:
                classes[f"{subject.name}_{part.name}"] = drawings
    return classes


def _is_small(path: Path) -> bool:
    """Whether it is a PNG of up to 50 million pixels: one of the package has 623 million."""
    with open(path, "rb") as file:
        head = file.read(24)
    width, height = (int.from_bytes(head[start : start + 4], "big") for start in (16, 20))
    return head[12:16] == b"IHDR" and 0 < width * height <= MOST_PIXELS


def group_of(stems: list[str]) -> list[str]:
    """The author, as far as the names tell, or the series, of each file name without suffix.

    An author is a word that, not as the first one, is in the names of three or more different
    drawings; of several the most frequent. Without one, the name without its number is a series.
    """
    titles = [_NUMBER.sub("", stem.lower()) for stem in stems]
    words = [_WORDS.findall(title) for title in titles]
    count: Counter[str] = Counter()
    for different in {tuple(found) for found in words}:
        count.update(set(different[1:]))
    frequent = sorted(
        (word for word, files in count.items() if files >= _FREQUENT), key=lambda w: (-count[w], w)
    )
    groups = []
    for title, own in zip(titles, words, strict=True):
        later = own[1:]
        known = [word for word in later if count[word] >= _FREQUENT]
        if later and len(title) >= _CUT:  # the last word may be the beginning of a longer one
            known += [word for word in frequent if word.startswith(later[-1])][:1]
        groups.append(max(known, key=lambda word: (count[word], word)) if known else title)
    return groups
