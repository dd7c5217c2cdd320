"""8-bit RGB from the numbers of a file of any type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from convit_ssl.data.reading.eight_bits import strip_rows
from convit_ssl.data.reading.raw_image import RawImage, Values
from convit_ssl.data.reading.value_range import Pixels, Reading, chosen_range


def to_rgb(raw: RawImage, reading: Reading | None = None, factor: int = 1) -> Pixels:
    """(H, W, 3) of 8 bits: scaled, inverted where it is, laid over white where transparent.

    NaN and "no data" become black; what lies outside the range is cut off.

    Args:
        raw: the image.
        reading: of its collection.
        factor: by which it is reduced, averaged in 8 bits.
    """
    made = np.empty((*_reduced_shape(raw, factor), 3), np.uint8)
    for top, strip in _strips(raw, reading or Reading(), factor):
        made[top : top + len(strip)] = strip
    return made


def to_image(raw: RawImage, reading: Reading | None = None, factor: int = 1) -> Image.Image:
    """`to_rgb` as a Pillow image, without holding all of its pixels twice."""
    height, width = _reduced_shape(raw, factor)
    made = Image.new("RGB", (width, height))
    for top, strip in _strips(raw, reading or Reading(), factor):
        made.paste(Image.fromarray(strip), (0, top))
    return made


def _reduced_shape(raw: RawImage, factor: int) -> tuple[int, int]:
    height, width = raw.values.shape[:2]
    return -(-height // min(factor, height)), -(-width // min(factor, width))


def _strips(raw: RawImage, reading: Reading, factor: int) -> Iterator[tuple[int, Pixels]]:
    """The first row of each strip of the result, and its pixels (rows, W, 3)."""
    low, high = chosen_range(raw, reading)
    alpha, opaque = _alpha(raw, high)
    height, width = raw.values.shape[:2]
    down, across = min(factor, height), min(factor, width)
    rows = strip_rows(width, down)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        share = None if alpha is None else _share(alpha[part], opaque)
        strip = _rgb(_rows(raw, part), share, low, high)
        if factor > 1:
            strip = np.asarray(Image.fromarray(strip).reduce((across, down)))
        yield top // down, strip


def _rows(raw: RawImage, rows: slice) -> RawImage:
    valid = None if raw.valid is None else raw.valid[rows]
    return replace(raw, values=raw.values[rows], alpha=None, valid=valid)


def _rgb(raw: RawImage, share: npt.NDArray[np.float32] | None, low: float, high: float) -> Pixels:
    if raw.premultiplied and share is not None:
        scaled = _premultiplied(raw, low, high, share)
    else:
        scaled = _scaled(raw.values, low, high)
        if raw.inverted:
            scaled = 255 - scaled
        if share is not None:
            opacity = share if scaled.ndim == 2 else share[..., None]
            over = 255.0 + (scaled.astype(np.float32) - 255.0) * opacity
            scaled = np.rint(over).astype(np.uint8)
    lost = np.isnan(raw.values) if raw.values.dtype.kind == "f" else np.zeros(1, bool)
    if lost.any():
        scaled[lost] = 0
    if raw.valid is not None:
        scaled[~raw.valid] = 0
    if scaled.ndim == 2:
        scaled = np.repeat(scaled[..., None], 3, axis=2)
    return np.ascontiguousarray(scaled)


def _scaled(values: Values, low: float, high: float) -> Pixels:
    factor = 255.0 / (high - low) if high > low else 0.0
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        least = np.iinfo(values.dtype).min
        every = np.arange(least, np.iinfo(values.dtype).max + 1, dtype=np.float64)
        table = np.rint(np.clip((every - low) * factor, 0.0, 255.0)).astype(np.uint8)
        return table[values.astype(np.int64) - least] if least else table[values]
    wide = np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        # Clipped first: an infinity times the factor 0 would be no number.
        found = (np.clip(values.astype(wide), low, high) - wide(low)) * wide(factor)
        found = np.rint(np.clip(np.nan_to_num(found), 0.0, 255.0))
    scaled: Pixels = found.astype(np.uint8)
    return scaled


def _alpha(raw: RawImage, white: float) -> tuple[Values | None, float]:
    """Alpha, and its value where all is opaque.

    That follows from its type, or is the white of the colours where it stays within that.
    """
    alpha = raw.alpha
    if alpha is None or alpha.dtype.kind == "b":
        return alpha, 1.0
    if alpha.dtype.kind == "f":
        finite = alpha[np.isfinite(alpha)]
        most = max(float(finite.max(initial=0.0)), float(np.isposinf(alpha).any()))
        return alpha, 1.0 if most <= 1.0 else 255.0 if most <= 255.0 else most
    if alpha.dtype.kind == "i" and alpha.min(initial=0) < 0:
        alpha = alpha.view(alpha.dtype.str.replace("i", "u"))
    # 12-bit colours in 16 bits often have an alpha of 12 bits.
    if raw.kind == "unsigned" and 0 < int(alpha.max(initial=0)) <= white:
        return alpha, white
    return alpha, float(np.iinfo(alpha.dtype).max)


def _share(alpha: Values, opaque: float) -> npt.NDArray[np.float32]:
    """Alpha as 0..1."""
    if alpha.dtype.kind == "f":
        alpha = np.nan_to_num(alpha.astype(np.float64), posinf=1.0, neginf=0.0)
    share: npt.NDArray[np.float32] = np.clip(alpha / opaque, 0.0, 1.0).astype(np.float32)
    return share


def _premultiplied(
    raw: RawImage, low: float, high: float, share: npt.NDArray[np.float32]
) -> Pixels:
    """Values that were multiplied by alpha: only the white behind them is added."""
    opacity = share if raw.values.ndim == 2 else share[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(opacity > 0, raw.values / np.maximum(opacity, 1e-6), low)
    straight = _scaled(values.astype(np.float64), low, high).astype(np.float32)
    if raw.inverted:
        straight = 255.0 - straight
    over: Pixels = np.rint(255.0 + (straight - 255.0) * opacity).astype(np.uint8)
    return over
