"""Any image file as 8-bit RGB to look at and to compare, whatever its channels and numbers."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convit_ssl.data.channel_reading import special_rgb
from convit_ssl.data.pixels import MAX_PIXELS, Pixels, decode_image
from convit_ssl.data.planes import Planes
from convit_ssl.data.readers import read_special
from convit_ssl.data.storage import read_bytes
from convit_ssl.data.tiff import is_tiff, read_tiff_planes
from convit_ssl.data.value_range import Reading

_SHOWN_AS_THEY_ARE = (1, 3, 4)  # channels
_CUT = 0.5  # per cent of the pixels at either end, of images of many channels


def view_image(
    path: str,
    data: bytes | None = None,
    reading: Reading | None = None,
    side: int | None = None,
) -> Image.Image:
    """An image as Pillow RGB.

    Of images of two channels, or of more than four, red, green and blue are the means of the first,
    the middle and the last third of the channels, each from its darkest to its brightest: no
    channel is left out.

    Args:
        path: with the part that is meant, if any.
        data: the file's bytes, where they are read already.
        reading: what becomes black and white.
        side: pixels of the longer side that are enough; None keeps all.

    Raises:
        Exception: whatever a library raises for a damaged file; there are many kinds.
    """
    reading = reading or Reading()
    data = read_bytes(path) if data is None else data
    planes = read_special(path, data, reading)
    if planes is None and is_tiff(data):
        found = read_tiff_planes(data, MAX_PIXELS)
        planes = found if found is not None and not _plain(found) else None
        if planes is None:
            return decode_image(data, reading=reading, side=side)
    if planes is None:
        return decode_image(data, reading=reading, side=side)
    pixels = special_rgb(path, data, reading) if _plain(planes) else thirds(planes)
    assert pixels is not None
    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side), Image.Resampling.BOX)
    return image


def _plain(planes: Planes) -> bool:
    return planes.channels in _SHOWN_AS_THEY_ARE


def thirds(planes: Planes) -> Pixels:
    """(H, W, 3) of 8 bits: the means of thirds of the channels."""
    values = np.nan_to_num(planes.values.astype(np.float32), posinf=0.0, neginf=0.0)
    if planes.valid is not None:
        values[~planes.valid] = 0.0
    parts = np.array_split(np.arange(planes.channels), 3)
    return np.stack(
        [_eight_bits(values[..., part or [planes.channels - 1]].mean(axis=-1))
         for part in map(list, parts)],
        axis=-1,
    )  # fmt: skip


def _eight_bits(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Pixels:
    """From the darkest to the brightest; black where all is 0, grey where all is alike."""
    low, high = (float(end) for end in np.percentile(values, (_CUT, 100 - _CUT)))
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return np.full(values.shape, 0 if high == 0 else 128, np.uint8)
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    rounded: Pixels = np.rint(255 * share).astype(np.uint8)
    return rounded
