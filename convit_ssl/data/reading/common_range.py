"""One range of values for a whole collection, or none where it mixes depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convit_ssl.data.reading.value_range import Range, Reading, ends, white_of

_FEW = 100  # of so many images one may lie outside the range of the others
_ALONE = 10  # of fewer images, none may
_FAINT = 16  # an image whose white is so many times darker than the collection's is nearly black
# What tells another depth from a dim image of the same camera: so many of the dim ones
_OTHERS = 0.05  # of all images; from 9 bits on, as empty tiles are dim everywhere;
_CLUSTER = 2 / 3  # with the same number of bits; or
_FULL = 0.95  # up to this share of what their bits hold,
_REACHING = 0.5  # such a share of them.

_NAMES = {
    "unsigned": "integers of more than 8 bits",
    "signed": "signed integers",
    "float": "floating point",
}
_OPTIONS = {
    "unsigned": "data.white_level",
    "signed": "data.signed_range",
    "float": "data.float_range",
}


def judge(
    ranges: Mapping[str, Sequence[tuple[Range, str]]],
) -> tuple[Reading, tuple[str, ...]]:
    """The ranges of a collection, and what to know of them.

    Args:
        ranges: by kind of number, the (lowest, highest) value of each image and its type.

    Returns:
        The ranges, none for a kind of which no one range does; warnings in sentences.
    """
    chosen: dict[str, Range] = {}
    warnings: list[str] = []
    for kind, found in ranges.items():
        common = common_range(kind, [extent for extent, _ in found])
        said, mixed = _depths(kind, found, common)
        if said:
            warnings.append(said)
        if not mixed and common[0] < common[1]:
            chosen[kind] = common
    reading = Reading(
        white_level=int(chosen["unsigned"][1]) if "unsigned" in chosen else 0,
        signed_range=chosen.get("signed"),
        float_range=chosen.get("float"),
    )
    return reading, tuple(warnings)


def common_range(kind: str, found: Sequence[Range]) -> Range:
    """What becomes black and white for all images.

    From ten images on, one in a hundred, and one at least, does not decide: of unsigned integers
    an image that needs more is scaled by itself, of the others what lies far outside is cut off.

    Args:
        kind: ``unsigned``, ``signed`` or ``float``.
        found: the (lowest, highest) value of each image.
    """
    lows, highs = (np.sort(np.array(side)) for side in zip(*found, strict=True))
    out = max(1, len(found) // _FEW) if len(found) >= _ALONE else 0
    low, high = float(lows[out]), float(highs[-1 - out])
    if kind != "unsigned":
        span = (high - low) / 2
        low = float(lows[lows >= low - span][0])
        high = float(highs[highs <= high + span][-1])
    return ends(kind, (low, high))


def _depths(kind: str, found: Sequence[tuple[Range, str]], chosen: Range) -> tuple[str, bool]:
    """What to say of images that a common range makes black or cuts off; whether depths mix."""
    low, high = chosen
    size = high - low
    lows, highs = (np.array(side) for side in zip(*(extent for extent, _ in found), strict=True))
    if kind == "unsigned":
        width = np.array([white_of(peak) for peak in highs], dtype=float)
        faint = (width * _FAINT <= size + _FAINT) & (highs > 0)
        beyond = width * 2 > size * _FAINT
    else:
        width = highs - lows
        faint = (width > 0) & (width * _FAINT <= size)
        beyond = (lows < low - size) | (highs > high + size)
    parts = []
    if beyond.any():
        then = "are scaled by themselves" if kind == "unsigned" else "are cut off there"
        parts.append(f"{int(beyond.sum()):,} go far beyond {low:,.6g} to {high:,.6g} and {then}")
    mixed = _other_types(faint, [name for _, name in found])
    mixed = mixed or (kind == "unsigned" and _other_depth(width, highs, faint, size))
    if mixed or faint.sum() > _OTHERS * len(found):
        parts.append(
            f"in one range, {low:,.6g} to {high:,.6g}, {int(faint.sum()):,} would be nearly black "
            f"or flat (they end at {highs[faint].max():,.6g})"
        )
    if not parts:
        return "", False
    text = f"{len(found):,} images hold {_NAMES[kind]}: " + "; ".join(parts)
    option = f"{_OPTIONS[kind]}=" + (f"{high:.0f}" if kind == "unsigned" else f"[{low:g},{high:g}]")
    if mixed:
        text += (
            ". The collection seems to mix bit depths, so each image is scaled separately and "
            f"brightness cannot be compared between images; {option} gives all of them one range"
        )
    else:
        text += f". {option} is the range in use; change it if this is not what you want"
    return text, mixed


def _other_types(faint: Any, types: Sequence[str]) -> bool:
    """Whether all faint images are of types that no other image has."""
    ours = {name for name, dim in zip(types, faint, strict=True) if dim}
    others = {name for name, dim in zip(types, faint, strict=True) if not dim}
    return bool(ours) and not ours & others


def _other_depth(width: Any, peaks: Any, faint: Any, size: float) -> bool:
    """Whether faint unsigned images are those of another depth rather than dim ones."""
    own, total = width[faint], len(width)
    deep = own > white_of(0)
    if deep.sum() < max(2, _OTHERS * total) or total - len(own) < 2:
        return False
    if (peaks[faint][deep] >= _FULL * own[deep]).mean() >= _REACHING:
        return True
    _values, counts = np.unique(own[deep], return_counts=True)
    between = ~faint & (width * 4 <= size)
    return bool(counts.max() >= _CLUSTER * len(own) and not between.any())
