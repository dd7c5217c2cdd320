"""Which numbers become black and white, by one rule for all types.

Of one image, `robust_range` leaves out what is not signal: NaN, infinities, transparent pixels,
"no data", fill values far from everything else, and a thousandth of the pixels at either end (hot
and dead pixels). Then

* unsigned integers run from 0 to the fewest bits, from 8 on, that hold that range;
* floating point within 0..1 runs from 0 to 1;
* everything else runs from the lower to the upper end of the range.

A `Reading` has the ranges of a whole collection, so that its images stay comparable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convit_ssl.data.reading.raw_image import RawImage, Values

Pixels = npt.NDArray[np.uint8]
Range = tuple[float, float]

_FEWEST_BITS = 8
_OUTLIERS = 1000  # one pixel of so many, at either end, may lie outside
_LARGEST = 1e30  # beyond it a float stands for "no data" (GDAL's 3.4e38, netCDF's 9.97e36)
# A fill value lies so many times the range of all other values away from them: few of the numbers
# that are usual for it, more of any other.
_USUAL_GAP, _ZERO_GAP, _GAP = 0.5, 2.0, 8.0
_AT_A_TIME = 1 << 18  # values that are counted
_FEWEST_LEVELS = 8  # of the others: a mask of 0 and 1000 has no fill value


@dataclass(frozen=True)
class Reading:
    """How the files of a collection become 8-bit RGB.

    Attributes:
        white_level: of unsigned integers of more than 8 bits, what becomes white; an image that
            needs more is scaled by itself. 0: each image by itself.
        signed_range: of signed integers, (black, white); values outside are cut off. None: each
            image by itself.
        float_range: the same of floating point.
        exif_rotation: whether photographs are turned upright as their EXIF entry says.
        depth: "8bit", or "native": float arrays in place of 8-bit RGB, nothing rounded.
        channels: numbers (from 1 on) and names of the channels that are read, or "all"; None for
            RGB, and in native depth for all but transparency.
        file_channels: how many each file has; 0 for any number.
        channel_ranges: of each channel that is read, the values that become 0 and 1.
        window: (black, white) of files of more than 8 bits, values outside are cut off; "file"
            for what each file suggests.
        parts: which images of a file that holds several, such as ``axial:4``; "" for the usual.
        reader: of the table of readers; "auto" chooses by content.
        tiles: side of the tiles that large images are read in, in pixels; 0 reads them whole.
        tile_scales: how many times smaller tiles show the image; one is drawn for each tile in
            training, the first is for evaluation. Empty for full size.
        tile_rotation: whether tiles are turned by any angle in training.
        tile_share: of a tile, in which there has to be tissue or data.
        physical: side of the square in which all crops of an image lie, in mm; 0 for the image.
        pixel_size: of a pixel in mm, whatever the file says; 0 believes the file.
    """

    white_level: int = 0
    signed_range: Range | None = None
    float_range: Range | None = None
    exif_rotation: bool = False
    depth: str = "8bit"
    channels: tuple[str | int, ...] | str | None = None
    file_channels: int = 0
    channel_ranges: tuple[Range, ...] | None = None
    window: Range | str | None = None
    parts: str = ""
    reader: str = "auto"
    tiles: int = 0
    tile_scales: tuple[int, ...] = ()
    tile_rotation: bool = False
    tile_share: float = 0.1
    physical: float = 0.0
    pixel_size: float = 0.0

    @property
    def native(self) -> bool:
        """Whether images are float arrays of any number of channels."""
        return self.depth == "native" or self.channels is not None

    @classmethod
    def of(cls, settings: Any) -> Reading:
        """From the ``data`` section of options or of a checkpoint; what it lacks is the default."""
        names = [each.name for each in fields(cls)]
        known = isinstance(settings, Mapping)
        found = {n: settings.get(n) if known else getattr(settings, n, None) for n in names}
        level, channels, ranges = found["white_level"], found["channels"], found["channel_ranges"]
        pairs = tuple(_pair(one) or (0.0, 1.0) for one in ranges) if ranges else None
        return cls(
            white_level=int(level) if isinstance(level, (int, float)) else 0,
            signed_range=_pair(found["signed_range"]),
            float_range=_pair(found["float_range"]),
            exif_rotation=found["exif_rotation"] is True,
            depth="native" if found["depth"] == "native" else "8bit",
            channels=_channels(channels),
            file_channels=int(found["file_channels"] or 0),
            channel_ranges=pairs,
            window=parse_window(found["window"]),
            parts=str(found["parts"] or ""),
            reader=str(found["reader"] or "auto"),
            tiles=int(found["tiles"] or 0),
            tile_scales=_scales(found["tile_scales"]),
            tile_rotation=found["tile_rotation"] is True,
            tile_share=0.1 if found["tile_share"] is None else float(found["tile_share"]),
            physical=parse_length(found["physical"]),
            pixel_size=parse_length(found["pixel_size"]),
        )

    def completed(self, other: Reading) -> Reading:
        """This, with the ranges of another where it has none."""
        return replace(
            self,
            white_level=self.white_level or other.white_level,
            signed_range=self.signed_range or other.signed_range,
            float_range=self.float_range or other.float_range,
        )

    def describe(self) -> dict[str, Any]:
        """What differs from the default, for fingerprints and records."""
        found: dict[str, Any] = {}
        if self.white_level:
            found["white_level"] = self.white_level
        for name in ("signed_range", "float_range"):
            if (pair := getattr(self, name)) is not None:
                found[name] = list(pair)
        if self.exif_rotation:
            found["exif_rotation"] = True
        usual = Reading()
        for name in (
            "depth", "channels", "file_channels", "window", "parts", "reader", "tiles",
            "tile_scales", "tile_share", "physical", "pixel_size",
        ):  # fmt: skip
            value = getattr(self, name)
            if value != getattr(usual, name):
                found[name] = list(value) if isinstance(value, tuple) else value
        if self.channel_ranges is not None:
            found["channel_ranges"] = [list(pair) for pair in self.channel_ranges]
        return found


def _channels(value: Any) -> tuple[str | int, ...] | str | None:
    if value is None or isinstance(value, str):
        return (
            tuple(int(p) if p.isdigit() else p for p in value.split(","))
            if (value and value != "all")
            else value or None
        )
    return tuple(value) if isinstance(value, Sequence) else (int(value),)


def _scales(value: Any) -> tuple[int, ...]:
    if not value:
        return ()
    return tuple(map(int, value)) if isinstance(value, Sequence) else (int(value),)


_MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3, "km": 1e6}


def parse_length(value: Any) -> float:
    """``50um`` or ``10m`` in mm; 0 of None and of anything else. A bare number is in mm."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 < value < math.inf else 0.0
    text = str(value or "").strip().replace(" ", "")
    number = text.rstrip("nuµμmck")
    unit = text[len(number) :]
    try:
        size = float(number) * _MM[unit]
    except (ValueError, KeyError):
        return 0.0
    return size if 0 < size < math.inf else 0.0


def parse_window(value: Any) -> Range | str | None:
    """``-1000:400``, two numbers, or ``file``; None of anything else."""
    if isinstance(value, str) and value != "file":
        parts = value.split(":")
        try:
            return _pair([float(part) for part in parts])
        except ValueError:
            return None
    return value if value == "file" else _pair(value)


def _pair(value: Any) -> Range | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = float(value[0]), float(value[1])
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def robust_range(raw: RawImage) -> Range | None:
    """(lowest, highest) value of an image that counts; None where none does."""
    return values_range(_counting(raw))


def values_range(values: Values) -> Range | None:
    """(lowest, highest) of numbers of any type and shape, by the rule above."""
    levels, counts = _levels(values.reshape(-1))
    if not len(levels):
        return None
    fill = _without_fill(levels, floats=values.dtype.kind == "f")
    levels, counts = levels[fill], counts[fill]
    total = np.cumsum(counts)
    outside = int(total[-1]) // _OUTLIERS
    low = float(levels[np.searchsorted(total, outside, side="right")])
    high = float(levels[np.searchsorted(total, total[-1] - outside, side="left")])
    if values.dtype.kind in "bu":
        return low, high
    # Outliers only where they are far: a smooth image keeps its very ends.
    span = high - low
    inside = levels[(levels >= low - span) & (levels <= high + span)]
    return float(inside[0]), float(inside[-1])


def _counting(raw: RawImage) -> Values:
    keep = raw.valid
    if raw.alpha is not None and raw.alpha.any():
        opaque = raw.alpha != 0
        if keep is not None and keep.ndim == 3:
            opaque = opaque[..., None]
        keep = opaque if keep is None else keep & opaque
    return raw.values if keep is None or keep.all() else raw.values[keep]


def _levels(values: Values) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The different values in order, and how many pixels have each."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        least = np.iinfo(values.dtype).min
        counts = np.zeros(2 ** (8 * values.dtype.itemsize), np.int64)
        for start in range(0, len(values), _AT_A_TIME):
            part = values[start : start + _AT_A_TIME].astype(np.int64) - least
            counts += np.bincount(part, minlength=len(counts))
        present = np.flatnonzero(counts)
        return (present + least).astype(np.float64), counts[present]
    # In their own type first: eight bytes for each pixel of a large image are too many.
    levels, counts = np.unique(values, return_counts=True)
    found = levels.astype(np.float64)
    usual = np.abs(found) < _LARGEST  # which neither NaN nor an infinity is
    return found[usual], counts[usual]


def _without_fill(levels: npt.NDArray[np.float64], floats: bool) -> slice:
    """The part of the values that are no fill values."""
    first, last = 0, len(levels)
    changed = True
    while changed:
        changed = False
        if last - first <= _FEWEST_LEVELS:
            break
        if _is_fill(levels[first], levels[first + 1 : last], floats):
            first, changed = first + 1, True
        elif _is_fill(levels[last - 1], levels[first : last - 1], floats):
            last, changed = last - 1, True
    return slice(first, last)


def _is_fill(value: float, others: npt.NDArray[np.float64], floats: bool) -> bool:
    gap = min(abs(value - others[0]), abs(value - others[-1]))
    least = _ZERO_GAP if value == 0.0 and floats else _GAP
    if _is_usual_fill(value):
        least = _USUAL_GAP
    return bool(gap > least * (others[-1] - others[0]))


def _is_usual_fill(value: float) -> bool:
    """-999, -9999.9, the ends of integers of 16 and 32 bits."""
    size = abs(value)
    if size in (32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1):
        return True
    return size >= 999 and set(f"{size:.6g}".replace(".", "")) == {"9"}


def white_of(high: float) -> int:
    """What becomes white of unsigned integers up to ``high``: the fewest bits that hold them."""
    return (1 << max(_FEWEST_BITS, int(high).bit_length())) - 1


def ends(kind: str, found: Range | None) -> Range:
    """What becomes black and white of numbers of a kind within a range."""
    low, high = found or (0.0, 0.0)
    if kind == "unsigned" or (kind == "signed" and low >= 0.0):
        return 0.0, float(white_of(high))
    if kind == "float" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    return low, high


def chosen_range(raw: RawImage, reading: Reading) -> Range:
    """What becomes black and white in an image."""
    if isinstance(reading.window, tuple) and raw.values.dtype != np.uint8:
        return reading.window
    if raw.kind == "signed" and reading.signed_range is not None:
        return reading.signed_range
    if raw.kind == "float" and reading.float_range is not None:
        return reading.float_range
    if raw.values.dtype == np.uint8:
        return 0.0, 255.0
    low, high = ends(raw.kind, robust_range(raw))
    if raw.kind == "unsigned":
        high = max(high, reading.white_level)
    elif low == high:
        finite = raw.values[np.isfinite(raw.values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return low, high
