"""What GDAL notes in a TIFF about its bands: the value of "no data", scale and offset.

A band with a scale or an offset stores packed numbers; value = number * scale + offset, in the
unit that the file is about (GDAL's raster data model). "No data" is a packed number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convit_ssl.data.reading.raw_image import Values

Mask = npt.NDArray[np.bool_]
_ITEM = re.compile(r"<Item\b([^<>]*)>([^<>]*)</Item>")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True)
class Scaling:
    """Scale and offset of each band."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def of(self, bands: slice) -> Scaling:
        """That of some of the bands."""
        return Scaling(self.scales[bands], self.offsets[bands])

    def apply(self, values: Values) -> Values:
        """(H, W, bands) of packed numbers as float32, or float64 where float32 would round them."""
        narrow = values.dtype.itemsize <= (4 if values.dtype.kind == "f" else 2)
        wide = values.astype(np.float64)
        wide *= np.asarray(self.scales)
        wide += np.asarray(self.offsets)
        return wide.astype(np.float32) if narrow else wide


def scaling(scales: Sequence[float], offsets: Sequence[float]) -> Scaling | None:
    """The scaling of a file; None where no band has any."""
    found = Scaling(tuple(map(float, scales)), tuple(map(float, offsets)))
    plain = set(found.scales) <= {1.0} and set(found.offsets) <= {0.0}
    usable = all(map(math.isfinite, (*found.scales, *found.offsets))) and all(found.scales)
    return None if plain or not usable else found


def parse_scaling(metadata: Any, bands: int) -> Scaling | None:
    """Scale and offset in the text of GDAL's metadata (TIFF tag 42112)."""
    if isinstance(metadata, bytes):
        metadata = metadata.decode("utf-8", "ignore")
    found = {"scale": [1.0] * bands, "offset": [0.0] * bands}
    for attributes, text in _ITEM.findall(str(metadata or "")):
        entry = dict(_ATTRIBUTE.findall(attributes))
        role, band, number = entry.get("role"), entry.get("sample", ""), parse_number(text)
        if role in found and number is not None and band.isdigit() and int(band) < bands:
            found[role][int(band)] = number
    return scaling(found["scale"], found["offset"])


def parse_number(text: Any) -> float | None:
    """A number as GDAL writes it; None of anything else."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "ignore")
    try:
        return float(str(text).strip(" \0\n\t")) if text is not None else None
    except ValueError:
        return None


def where_data(values: Values, nodata: float | None, picture: bool) -> Mask | None:
    """Where packed numbers are data: (H, W), (H, W, bands) where bands differ, None: everywhere.

    Args:
        values: (H, W, bands).
        nodata: of the file.
        picture: whether the first bands are red, green and blue; see `picture_mask`.
    """
    if nodata is None or math.isnan(nodata):
        return None  # NaN is never data
    if not _fits(nodata, values.dtype):
        return None
    # As written in decimal, a float32 nodata differs from the pixels in its last digits.
    valid: Mask = values != values.dtype.type(nodata)
    return picture_mask(valid) if picture and values.dtype.kind == "u" else shared_mask(valid)


def picture_mask(valid: Mask) -> Mask | None:
    """Of a picture in unsigned numbers, whose "no data" is black or white.

    A pixel counts as "no data" only if red, green and blue all do: 255 in red alone is bright red.

    Args:
        valid: (H, W, bands).
    """
    anywhere: Mask = np.logical_or.reduce(valid[..., :3], axis=-1)
    return shared_mask(anywhere)


def shared_mask(valid: Mask) -> Mask | None:
    """(H, W) of a mask (H, W, bands) where all bands agree; None where everything is data."""
    if valid.all():
        return None
    if valid.ndim == 3 and (valid == valid[..., :1]).all():
        return valid[..., 0]
    return valid


def _fits(number: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(number) and number == int(number) and limits.min <= number <= limits.max
