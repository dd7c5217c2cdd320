"""Images whose channels lie in several files, such as ``a_dapi.tif`` and ``a_gfp.tif``."""

from __future__ import annotations

import numpy as np

from convit_ssl.data.listing.part_names import split_joined
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.reading.gdal import shared_mask
from convit_ssl.data.reading.planes import MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import ImageHeader, Values
from convit_ssl.data.reading.value_range import Reading


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size of the first file; as many channels as there are files."""
    from convit_ssl.data.reading.pixels import image_header

    first = image_header(split_joined(file.path)[0][1])
    return ImageHeader(first.height, first.width, False, first.kind, "RGB")


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """The files' channels one after another; a file of one channel has the name of its column.

    Raises:
        ValueError: files of different sizes, or over 64 channels.
    """
    from convit_ssl.data.loading.storage import read_bytes
    from convit_ssl.data.readers import reads_by_path
    from convit_ssl.data.reading.channel_reading import read_planes

    names: list[str] = []
    found: list[Planes] = []
    for name, path in split_joined(file.path):
        data = None if reads_by_path(path, reading) else read_bytes(path)
        planes = read_planes(path, data, reading)
        if found and planes.values.shape[:2] != found[0].values.shape[:2]:
            sizes = [" x ".join(map(str, p.values.shape[1::-1])) for p in (planes, found[0])]
            raise ValueError(f"{path} has {sizes[0]} pixels, and the other files {sizes[1]}")
        one = planes.channels == 1
        names += [name] if one else [f"{name}{n}" for n in range(1, planes.channels + 1)]
        found.append(planes)
    if len(names) > MOST_CHANNELS:
        raise ValueError(f"{len(names)} channels; {MOST_CHANNELS} at most are read")
    valid = [
        np.ones(planes.values.shape, bool)
        if planes.valid is None
        else np.broadcast_to(np.atleast_3d(planes.valid), planes.values.shape)
        for planes in found
    ]
    values = np.concatenate([_upright(planes) for planes in found], axis=-1)
    return Planes(
        values,
        tuple(names),
        shared_mask(np.concatenate(valid, axis=-1)),
        spacing=next((planes.spacing for planes in found if planes.spacing), None),
    )


def _upright(planes: Planes) -> Values:
    """The values; those of an inverted file turned around within their type."""
    if not planes.inverted or planes.values.dtype.kind != "u":
        return planes.values
    turned: Values = np.iinfo(planes.values.dtype).max - planes.values
    return turned
