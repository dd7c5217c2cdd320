"""NPY and NPZ: one image an array, (H, W), (H, W, C) or (C, H, W). Nothing in them is run."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from convit_ssl.data.readers import ImageFile
from convit_ssl.data.reading.planes import MOST_CHANNELS, Planes
from convit_ssl.data.reading.raw_image import check_size
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.reading import announced_arrays


def _mapped(data: bytes) -> Any:
    """The array of a plain NPY where its bytes lie, not copied; None of anything else."""
    start = io.BytesIO(data)
    if data[:6] != b"\x93NUMPY" or np.lib.format.read_magic(start) != (1, 0):
        return None
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
    count = math.prod(shape)
    if dtype.hasobject or len(data) - start.tell() < count * dtype.itemsize:
        return None  # `numpy.load` says what is wrong
    values = np.frombuffer(data, dtype, count, start.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def _check(shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse an array that is not an image, or a huge one."""
    if len(shape) not in (2, 3) or dtype.kind not in "buif":
        raise ValueError(
            f"an array of shape {shape} and type {dtype} is not an image; "
            "save one image a file, as (H, W), (H, W, C) or (C, H, W)"
        )
    height, width, channels = (*shape, 1)[:3]
    if len(shape) == 3 and shape[0] < shape[-1]:
        channels, height, width = shape
    if not 0 < channels <= MOST_CHANNELS:
        raise ValueError(f"an array of shape {shape} has over {MOST_CHANNELS} channels")
    check_size(width, height)


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """The array, of an NPZ the only one. The shorter of the outer axes are the channels.

    Raises:
        ValueError: objects, another number of dimensions, or several arrays.
    """
    data = file.bytes()
    loaded: Any = _mapped(data)
    if loaded is None and data.startswith(b"PK"):
        arrays = announced_arrays(io.BytesIO(data))
        if len(arrays) != 1:
            raise ValueError(f"an NPZ file with {len(arrays)} arrays; save one image per file")
        ((name, announced),) = arrays.items()
        _check(*announced)  # before it is unpacked
        loaded = np.load(io.BytesIO(data), allow_pickle=False)[name]
    elif loaded is None:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
    values = loaded
    _check(values.shape, values.dtype)
    if values.ndim == 2:
        values = values[..., None]
    elif values.shape[0] < values.shape[-1]:
        values = np.moveaxis(values, 0, -1)
    values = values.astype(np.uint8) * np.uint8(255) if values.dtype.kind == "b" else values
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    return Planes(values, ("grey",) if values.shape[-1] == 1 else ())
