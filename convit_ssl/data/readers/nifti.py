"""NIfTI by nibabel: slices along an anatomical axis, turned upright, at square pixels."""

from __future__ import annotations

import functools
import os
from typing import Any

import cv2
import nibabel
import numpy as np

from convit_ssl.data.part_names import part_fields
from convit_ssl.data.planes import Planes
from convit_ssl.data.raw_image import KINDS, ImageHeader, check_size
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.value_range import Reading
from convit_ssl.errors import UserError

# Slices are cut across these axes of the volume in RAS+ orientation.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_KEPT = 2  # volumes in memory
_SQUARE = 1.01  # pixels that are longer than wide by less than this count as square


def parts(file: ImageFile, spec: str) -> list[str]:
    """Slices: ``axial`` (the default), ``coronal`` or ``sagittal``, every n-th with ``axial:4``.

    Raises:
        UserError: another axis.
    """
    axis, _, step = spec.partition(":")
    if axis == "first":
        return []
    axis = axis or "axial"
    if axis not in AXES or (step and not step.isdigit()):
        raise UserError(f"data.parts={spec}: of NIfTI give {', '.join(AXES)}, or axial:4")
    image = _canonical(_load(file))
    slices = image.shape[AXES[axis]] if len(image.shape) > AXES[axis] else 1
    if len(image.shape) == 4 and image.shape[3] > 1:
        return [
            f"{axis}={number},t={time}"
            for time in range(image.shape[3])
            for number in range(0, slices, max(1, int(step or 1)))
        ]
    return [f"{axis}={number}" for number in range(0, slices, max(1, int(step or 1)))]


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size of a slice and kind of number, without the voxels."""
    image = _canonical(_load(file))
    axis = next((name for name in AXES if name in part_fields(part)), "axial")
    shape, zooms = image.shape, [*image.header.get_zooms()[:3], 1.0, 1.0][:3]
    sizes = [(n, z) for place, (n, z) in enumerate(zip(shape, zooms, strict=False))
             if place < 3 and place != AXES[axis]]  # fmt: skip
    (across, wide), (down, high) = sizes[0], sizes[1]
    fine = min(wide, high) or 1.0
    square = max(wide, high) <= fine * _SQUARE
    rows = down if square else round(down * high / fine)
    columns = across if square else round(across * wide / fine)
    slope, intercept = image.header.get_slope_inter()
    plain = slope in (None, 1.0) and intercept in (None, 0.0)
    kind = KINDS.get(image.get_data_dtype().kind, "float") if plain else "float"
    mode = "F" if kind == "float" else "I;16"
    return ImageHeader(int(rows), int(columns), True, kind, mode)


def _load(file: ImageFile) -> Any:
    if file.data is None:
        return nibabel.load(file.local())
    data = file.data
    if data[:2] == b"\x1f\x8b":
        import gzip

        data = gzip.decompress(data)
    kind: Any = nibabel.Nifti2Image if data[4:8] == b"n+2\0" else nibabel.Nifti1Image
    return kind.from_bytes(data)


def _canonical(image: Any) -> Any:
    turn: Any = nibabel.as_closest_canonical
    return turn(image)


@functools.lru_cache(_KEPT)
def _volume(path: str, stamp: tuple[int, int]) -> tuple[Any, tuple[float, ...]]:
    """A volume in RAS+ orientation in its scaled values, and the sizes of its voxels in mm."""
    return _upright(nibabel.load(path))


def _upright(image: Any) -> tuple[Any, tuple[float, ...]]:
    image = _canonical(image)
    slope, intercept = image.header.get_slope_inter()
    plain = slope in (None, 1.0) and intercept in (None, 0.0)
    values = np.asanyarray(image.dataobj)
    if not plain:
        values = values.astype(np.float32)
    return values, tuple(float(size) for size in image.header.get_zooms()[:3])


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One slice; without a part the middle one. Rows run from above (or the front) downwards.

    Raises:
        ValueError: no picture, or voxels of a structured type.
    """
    if file.data is None or os.path.isfile(file.path):
        state = os.stat(file.local())
        values, zooms = _volume(file.path, (state.st_mtime_ns, state.st_size))
    else:
        values, zooms = _upright(_load(file))
    fields = part_fields(part)
    axis = next((name for name in AXES if name in fields), "axial")
    if values.dtype.names or values.ndim < 2:
        raise ValueError(f"a NIfTI of {values.ndim} dimensions of {values.dtype}")
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim > 3:
        values = values.reshape(*values.shape[:3], -1)[..., int(fields.get("t", 0))]
    number = AXES[axis]
    size = values.shape[number]
    place = int(fields.get(axis, size // 2))
    if not 0 <= place < size:
        raise ValueError(f"there are {size} {axis} slices, and no slice {place}")
    # By index and not by numpy's take, which copies all of a volume in Fortran's order first.
    plane = values[(slice(None),) * number + (place,)]
    across, down = (zooms[n] if n < len(zooms) else 1.0 for n in range(3) if n != number)
    # RAS+: the first axis runs to the right, the second to the front, the third upwards.
    plane = np.ascontiguousarray(np.rot90(plane))
    return Planes(_square(plane, down, across)[..., None], ("grey",), spacing=(down, across))


def _square(plane: Any, down: float, across: float) -> Any:
    """Square pixels: the coarser direction is interpolated to the finer one's spacing."""
    if max(down, across) <= min(down, across) * _SQUARE or min(down, across) <= 0:
        return plane
    fine = min(down, across)
    rows, columns = round(plane.shape[0] * down / fine), round(plane.shape[1] * across / fine)
    check_size(columns, rows)
    resized = cv2.resize(plane.astype(np.float64), (columns, rows), interpolation=cv2.INTER_LINEAR)
    whole = plane.dtype.kind in "ui"
    return (np.rint(resized) if whole else resized).astype(plane.dtype)
