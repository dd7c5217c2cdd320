"""Images that are there twice: the same bytes, or the same picture saved another way.

Digits and products resemble one another more than a recompressed photograph resembles its
source, so no fixed distance tells copies apart. Two rules are used, each of which stays silent
where images are alike without being copies:

* **Thumbnails** (32 x 32 grey, normalised): a pair counts where its distance is a small part of
  the usual distance between neighbours of this collection, with the same colours, brightness
  and contrast.
* **Keypoints** (SIFT: Lowe 2004): for images with enough detail, a pair counts where many
  keypoints match under one shift and scale of a few per cent. This finds small crops.

Cells of one wafer or shots of one scene pass both rules. So one image of each pair is laid over
the other: copies agree almost perfectly, and the rest are look-alikes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit_ssl.data.checks.alignment import Floats, agreement, square
from convit_ssl.data.checks.keypoints import KeypointMatcher, Match
from convit_ssl.data.checks.quality import ImageFacts, Progress

NEIGHBOURS = 10
CANDIDATES = 3
# Distance (1 - correlation) of copies: below this, and below this share of the usual distance of
# the fifth neighbour. Different ones of digits and mnist come as near as .05 of it.
LARGEST = 0.015
SHARE = 0.04
OWN_SHARE = 0.25
SMALL_DISTANCE = 0.008  # at full size, of images under 40 pixels
# Distance (1 - correlation) of copies that lie over each other. Solar cells of one wafer come as
# near as .004; copies saved as JPEG of quality 30 are at .002 or below.
ALIGNED = 0.003
# Pairs worth a look at their keypoints: correlation, and distance to the tenth neighbour's.
WORTH_A_LOOK = 0.25
STANDS_OUT = 0.9
MOST_LOOKS = 20_000
BRIGHTNESS, CONTRAST, COLOUR = 32.0, 1.5, 12.0
# Thumbnails are compared at half their side of many images, and of small ones, where a resized
# copy lacks what the thumbnail would show.
LARGE = 20_000
SMALL = 96  # pixels
SMALLEST_FOR_KEYPOINTS = 40  # pixels
KEPT = 512  # images that are kept while pairs are laid over each other


@dataclass(frozen=True)
class Pair:
    """Two images that show the same.

    Attributes:
        first: position.
        second: position, larger than `first`.
        kind: exact, thumbnail, keypoints, alike (no copies, but hard to tell apart) or features.
        likeness: 0..1, by which they were found; of look-alikes, correlation once aligned.
    """

    first: int
    second: int
    kind: str
    likeness: float


def find_duplicates(
    facts: Sequence[ImageFacts],
    load: Callable[[int], Any],
    progress: Progress | None = None,
) -> list[Pair]:
    """Exact and near duplicates among images.

    Args:
        facts: of `quality.inspect_all`. Blank and unreadable images are passed over.
        load: the Pillow image at a position, to look at its keypoints.
        progress: called with (pairs looked at, pairs).

    Returns:
        Pairs in the order of their positions; of several equal files, each with the first.
    """
    pairs = {(p.first, p.second): p for p in _exact(facts)}
    copies = {p.second for p in pairs.values()}
    rows = [
        position
        for position, one in enumerate(facts)
        if one.grey is not None and not one.problem and position not in copies
    ]
    if len(rows) < 2:
        return sorted(pairs.values(), key=_place)
    small = float(np.median([min(facts[row].size) for row in rows])) < SMALL
    greys = np.stack([np.asarray(facts[row].grey) for row in rows])
    thumbnails = normalised(greys, halve=small or len(rows) > LARGE)
    indices, alike = nearest(thumbnails, min(NEIGHBOURS, len(rows) - 1))
    found, looks = _by_thumbnails(facts, rows, indices, alike)
    same = _SamePixels(facts, load, min(ALIGNED, SHARE * _usual_distance(alike)))
    for pair in found:
        if (pair.first, pair.second) not in pairs:  # each may be found from both sides
            pairs[pair.first, pair.second] = same.thumbnail(pair)
    chosen = [look for look in looks if look not in pairs][
        : min(MOST_LOOKS, CANDIDATES * len(rows))
    ]
    matcher = KeypointMatcher(load)
    for done, (first, second) in enumerate(chosen):
        if progress is not None:
            progress(done + 1, len(chosen))
        match = matcher.match(first, second)
        if match is not None:
            pairs[first, second] = same.keypoints(first, second, match)
    return sorted(pairs.values(), key=_place)


def _by_thumbnails(
    facts: Sequence[ImageFacts],
    rows: Sequence[int],
    indices: np.ndarray[Any, Any],
    alike: Floats,
) -> tuple[list[Pair], list[tuple[int, int]]]:
    """Pairs whose thumbnails agree, and pairs whose keypoints to compare; nearest first.

    Args:
        facts: of all images.
        rows: positions of those that are compared.
        indices: (N, k) of `nearest`, into `rows`.
        alike: (N, k) similarities.
    """
    limits = copy_distances(alike)
    pairs: list[Pair] = []
    looks: set[tuple[float, int, int]] = set()
    for query, (near, values) in enumerate(zip(indices, alike, strict=True)):
        usual = max(1.0 - float(values[-1]), 1e-6)
        for other, value in zip(near[:NEIGHBOURS], values, strict=True):
            first, second = sorted((rows[query], rows[int(other)]))
            distance = 1.0 - float(value)
            if distance <= min(limits[query], limits[int(other)]):
                if _same_tone(facts[first], facts[second]) and _same_strokes(
                    facts[first], facts[second]
                ):
                    pairs.append(Pair(first, second, "thumbnail", float(value)))
            elif (
                value >= WORTH_A_LOOK
                and distance <= STANDS_OUT * usual
                and not _is_small(facts[first], facts[second])
            ):
                looks.add((distance / usual, first, second))
    return pairs, list(dict.fromkeys((first, second) for _, first, second in sorted(looks)))


class _SamePixels:
    """Tells copies from look-alikes, by laying one image over the other.

    Args:
        facts: of all images.
        load: the Pillow image at a position.
        limit: distance (1 - correlation) of copies.
    """

    def __init__(
        self, facts: Sequence[ImageFacts], load: Callable[[int], Any], limit: float
    ) -> None:
        self._facts, self._limit = facts, limit
        self._square = functools.lru_cache(KEPT)(lambda position: square(load(position)))

    def thumbnail(self, pair: Pair) -> Pair:
        """A pair whose thumbnails agree; small images have no more detail to compare."""
        one, other = self._facts[pair.first], self._facts[pair.second]
        if _is_small(one, other) or 1.0 - _likeness(one, other) <= self._limit:
            return pair
        return self._aligned(pair, None)

    def keypoints(self, first: int, second: int, match: Match) -> Pair:
        """A pair whose keypoints agree."""
        return self._aligned(Pair(first, second, "keypoints", match.share), match.transform)

    def _aligned(self, pair: Pair, transform: Floats | None) -> Pair:
        likeness = agreement(self._square(pair.first), self._square(pair.second), transform)
        copied = 1.0 - likeness <= self._limit
        return pair if copied else Pair(pair.first, pair.second, "alike", likeness)


def _place(pair: Pair) -> tuple[int, int]:
    return pair.first, pair.second


def _exact(facts: Sequence[ImageFacts]) -> Iterator[Pair]:
    first: dict[str, int] = {}
    for position, one in enumerate(facts):
        if one.digest and first.setdefault(one.digest, position) != position:
            yield Pair(first[one.digest], position, "exact", 1.0)


def normalised(pictures: Floats, halve: bool = False) -> Floats:
    """(N, H, W) pictures as rows of mean 0 and length 1."""
    if halve:
        half = pictures.shape[1] // 2
        pictures = pictures.reshape(len(pictures), half, 2, half, 2).mean(axis=(2, 4))
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    rows: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return rows


def nearest(rows: Floats, k: int) -> tuple[np.ndarray[Any, Any], Floats]:
    """Positions and cosine similarities of the k nearest other rows, the nearest first."""
    indices, values = [], []
    chunk = max(1, min(1024, 64_000_000 // len(rows)))
    for first in range(0, len(rows), chunk):
        alike = rows[first : first + chunk] @ rows.T
        alike[np.arange(len(alike)), first + np.arange(len(alike))] = -2.0
        near = np.argpartition(-alike, min(k, len(rows) - 1) - 1, axis=1)[:, :k]
        part = np.take_along_axis(alike, near, axis=1)
        order = np.argsort(-part, axis=1, kind="stable")
        indices.append(np.take_along_axis(near, order, axis=1))
        values.append(np.take_along_axis(part, order, axis=1))
    return np.concatenate(indices), np.concatenate(values)


def copy_distances(alike: Floats) -> Floats:
    """(N,) the largest distance (1 - cosine) of a copy of each image.

    It is a small share of the usual distance to a fifth neighbour, which copies do not disturb:
    of the collection's, and a larger share of the image's own, as some images ("1" among digits)
    have nearer neighbours than others.

    Args:
        alike: (N, k) similarities to the nearest neighbours, in order.
    """
    limit = min(LARGEST, SHARE * _usual_distance(alike))
    distances: Floats = np.minimum(limit, OWN_SHARE * _to_fifth(alike))
    return distances


def _to_fifth(alike: Floats) -> Floats:
    """(N,) distances to the fifth neighbour."""
    distances: Floats = 1.0 - alike[:, min(4, alike.shape[1] - 1)]
    return distances


def _usual_distance(alike: Floats) -> float:
    return float(np.median(_to_fifth(alike)))


def _same_tone(one: ImageFacts, other: ImageFacts) -> bool:
    """Whether brightness, contrast and colours agree, which correlation does not see."""
    assert one.grey is not None and other.grey is not None
    assert one.colour is not None and other.colour is not None
    contrast = (one.grey.std() + 1) / (other.grey.std() + 1)
    return bool(
        abs(one.grey.mean() - other.grey.mean()) <= BRIGHTNESS
        and 1 / CONTRAST <= contrast <= CONTRAST
        and np.abs(one.colour - other.colour).mean() <= COLOUR
    )


def _same_strokes(one: ImageFacts, other: ImageFacts) -> bool:
    """Whether small images agree at 32 pixels, too: two digits do not."""
    if not _is_small(one, other):
        return True
    whole = normalised(np.stack([np.asarray(one.grey), np.asarray(other.grey)]))
    return 1.0 - float(whole[0] @ whole[1]) <= SMALL_DISTANCE


def _is_small(one: ImageFacts, other: ImageFacts) -> bool:
    return min(*one.size, *other.size) < SMALLEST_FOR_KEYPOINTS


def _likeness(one: ImageFacts, other: ImageFacts) -> float:
    """Correlation of two thumbnails at half their side."""
    rows = normalised(np.stack([np.asarray(one.grey), np.asarray(other.grey)]), halve=True)
    return float(rows[0] @ rows[1])


def duplicates_in_features(features: Floats, known: Sequence[Pair]) -> list[Pair]:
    """Pairs whose features nearly coincide, beyond those that are known.

    Args:
        features: (N, D) of a trunk; rows that are not finite are passed over.
        known: pairs that were found otherwise.
    """
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(rows) < 3:
        return []
    centred = features[rows] - features[rows].mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    indices, alike = nearest(unit.astype(np.float32), min(NEIGHBOURS, len(rows) - 1))
    limits = copy_distances(alike)
    before = {(pair.first, pair.second) for pair in known}
    found: dict[tuple[int, int], Pair] = {}
    for query, (near, values) in enumerate(zip(indices, alike, strict=True)):
        for other, value in zip(near, values, strict=True):
            first, second = sorted((int(rows[query]), int(rows[int(other)])))
            copied = 1.0 - float(value) <= min(limits[query], limits[int(other)])
            if copied and (first, second) not in before:
                found[first, second] = Pair(first, second, "features", float(value))
    return sorted(found.values(), key=_place)
