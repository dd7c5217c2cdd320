"""Which members of a WebDataset shard are images to learn from, and which belong to them.

A sample is all members of one key, the name up to its first dot; what follows is the kind of a
member (https://github.com/webdataset/webdataset, "The WebDataset Format"). ``x.jpg`` and
``x.seg.png`` are one sample with one image and its mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from convit_ssl.data.notes import note_once
from convit_ssl.data.shards.tables import Entry

# Of several plain kinds in one sample the first is the image; masks are kept without loss.
_ORDER = ("jpg", "jpeg", "jpe", "jfif", "webp", "avif", "jp2", "png", "tif", "tiff")
# First words of kinds such as img.png, where no kind is plain.
_IMAGE_WORDS = frozenset(("img", "image", "input", "rgb", "raw", "photo", "original", "source"))
_OTHER_WORDS = frozenset(
    ("seg", "mask", "masks", "label", "labels", "gt", "target", "depth", "normal", "normals")
) | frozenset(
    ("alpha", "instance", "panoptic", "semantic", "edge", "edges", "thumb", "thumbnail", "pred")
)


def split_name(name: str) -> tuple[str, str]:
    """Key and kind of a member: ``a/b.seg.png`` to ``a/b`` and ``seg.png``."""
    folder, slash, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def images_of_samples(entries: Sequence[Entry]) -> tuple[list[Entry], Counter[str]]:
    """One image of each sample, in order, and how many members of which kind were left aside.

    Samples without a plain kind, such as files named ``2020.01.05.jpg``, keep every member that
    is not called a mask or the like.
    """
    samples: dict[str, list[int]] = {}
    kinds = []
    for position, entry in enumerate(entries):
        key, kind = split_name(entry[0])
        kinds.append(kind)
        samples.setdefault(key, []).append(position)
    has_plain = any("." not in kind for kind in kinds)
    chosen: list[int] = []
    for members in samples.values():
        if len(members) > 1:
            chosen += _images(members, kinds)
        elif not has_plain or kinds[members[0]].split(".")[0] not in _OTHER_WORDS:
            chosen += members
    chosen.sort()
    kept = set(chosen)
    aside = Counter(kind for position, kind in enumerate(kinds) if position not in kept)
    return [entries[position] for position in chosen], aside


def _images(members: Sequence[int], kinds: Sequence[str]) -> list[int]:
    plain = [position for position in members if "." not in kinds[position]]
    if plain:
        rank = {kind: number for number, kind in enumerate(_ORDER)}
        return [min(plain, key=lambda position: rank.get(kinds[position], len(rank)))]
    words = {position: kinds[position].split(".")[0] for position in members}
    named = [position for position in members if words[position] in _IMAGE_WORDS]
    others = [position for position in members if words[position] not in _OTHER_WORDS]
    return named[:1] or others or list(members[:1])


def say_aside(aside: Counter[str], images: int, where: str) -> None:
    """Say which members of samples are not taken for images."""
    if aside:
        kinds = ", ".join(f"{count:,} .{kind}" for kind, count in aside.most_common(5))
        more = " and others" if len(aside) > 5 else ""
        note_once(f"{where}: {images:,} samples with one image each; left aside: {kinds}{more}")
