"""Any image file as 8-bit RGB to look at and to compare, whatever its channels and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from convit_ssl.data.listing.part_names import split_part
from convit_ssl.data.listing.scenes import is_tile, open_scene, read_tile
from convit_ssl.data.loading.storage import read_bytes
from convit_ssl.data.readers import (
    READERS,
    is_tiff_name,
    read_special,
    reader_by_path,
    reads_by_path,
)
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.colour_maps import coloured, composite, stain_colours
from convit_ssl.data.reading.pixels import MAX_PIXELS, Pixels, decode_image
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.rendering import to_rgb
from convit_ssl.data.reading.scale_bar import with_scale_bar
from convit_ssl.data.reading.shown_channels import find_shown
from convit_ssl.data.reading.tiff import read_tiff_planes
from convit_ssl.data.reading.tiff_tags import is_tiff
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

_SHOWN_AS_THEY_ARE = (1, 3, 4)  # channels
_SMALL = 128  # pixels of the longer side; smaller pictures are enlarged to have a scale bar
_OVERVIEW = 2048  # longer side of a slide's overview, pixels
_TRIED = 5  # images at most, until one can be read
_CUT = 0.5  # per cent of the pixels at either end, of images of many channels


def view_image(
    path: str,
    data: bytes | None = None,
    reading: Reading | None = None,
    side: int | None = None,
    show: Sequence[int | str] | None = None,
    scale_bar: bool = False,
    colour_map: str | None = None,
) -> Image.Image:
    """An image as Pillow RGB.

    Of images of two channels, or of more than four, red, green and blue are the means of the first,
    the middle and the last third of the channels, each from its darkest to its brightest: no
    channel is left out. Channels that are called after stains, such as DAPI and GFP, are shown in
    the colours of these. DICOM is shown in the window that the file suggests. Of a slide an
    overview is shown.

    Args:
        path: with the part that is meant, if any.
        data: the file's bytes, where they are read already.
        reading: what becomes black and white; by default as each file suggests.
        side: pixels of the longer side that are enough; None keeps all.
        show: one channel or three, by number from 0 on or by name, each from its darkest to its
            brightest.
        scale_bar: draw one, where the file says how large its pixels are.
        colour_map: of matplotlib, for what is shown in grey.

    Raises:
        UserError: the image has no such channel to show.
        Exception: whatever a library raises for a damaged file; there are many kinds.
    """
    reading = reading or Reading(window="file")
    measured = scale_bar and (reader_by_path(path) is not None or is_tiff_name(path))
    planes = _planes(path, data, reading, side, bool(show or colour_map) or measured)
    if planes is None:
        return decode_image(read_bytes(path) if data is None else data, reading=reading, side=side)
    image = Image.fromarray(_pixels(planes, reading, show, colour_map))
    spacing, width = planes.spacing, image.width
    if side is not None:
        image.thumbnail((side, side), Image.Resampling.BOX)
    if not scale_bar or spacing is None:
        return image
    times = (side or _SMALL) // max(image.size)
    if times > 1:  # room for the bar and its text
        size = image.width * times, image.height * times
        image = image.resize(size, Image.Resampling.NEAREST)
    scale = width / image.width
    return with_scale_bar(image, (spacing[0] * scale, spacing[1] * scale))


def check_shown(paths: Sequence[str], show: Sequence[int | str]) -> None:
    """Look for the channels to show in the first image that can be read.

    Raises:
        UserError: a channel is unknown; the message lists the known ones.
    """
    for path in paths[:_TRIED]:
        try:
            view_image(path, side=_SMALL, show=show)
        except UserError:
            raise
        except Exception:  # what libraries raise for a damaged file
            continue
        return


def _planes(
    path: str, data: bytes | None, reading: Reading, side: int | None, closely: bool
) -> Planes | None:
    """The channels; None of what Pillow shows as it is."""
    if reader_by_path(path) is READERS["slide"] and not split_part(path)[1]:
        scene = open_scene(path, reading)
        scale = max(1.0, max(scene.height, scene.width) / min(side or _OVERVIEW, _OVERVIEW))
        return scene.region(0, 0, scene.width, scene.height, scale)
    if data is None and not reads_by_path(path, reading):
        data = read_bytes(path)
    if closely:
        # Any physical size lets the reader of TIFF look for that of a pixel.
        return read_planes(path, data, replace(reading, physical=reading.physical or 1.0))
    planes = read_tile(path, reading) if is_tile(path) else read_special(path, data, reading)
    if planes is None and data is not None and is_tiff(data):
        planes = read_tiff_planes(data, MAX_PIXELS)
        planes = None if planes is not None and planes.channels in _SHOWN_AS_THEY_ARE else planes
    return planes


def _pixels(
    planes: Planes, reading: Reading, show: Sequence[int | str] | None, colour_map: str | None
) -> Pixels:
    if show:
        places = find_shown(show, planes.names, planes.channels)
        values = np.nan_to_num(planes.values.astype(np.float32), posinf=0.0, neginf=0.0)
        parts = [_eight_bits(values[..., place]) for place in places]
        if len(parts) == 1 and colour_map:
            return coloured(parts[0], colour_map)
        return np.stack(parts * 3 if len(parts) == 1 else parts, axis=-1)
    stains = stain_colours(planes.names) if planes.channels > 1 else None
    if stains is not None and len(stains) == planes.channels:
        values = np.nan_to_num(planes.values.astype(np.float32), posinf=0.0, neginf=0.0)
        return composite([_eight_bits(values[..., n]) for n in range(planes.channels)], stains)
    try:
        raw = planes.raw()
    except ValueError:
        return thirds(planes)
    window = planes.window if reading.window == "file" else reading.window
    pixels = to_rgb(raw, replace(reading, window=window))
    return coloured(pixels[..., 0], colour_map) if colour_map and planes.channels == 1 else pixels


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
