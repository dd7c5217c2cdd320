"""NIfTI by nibabel: slices along an anatomical axis, turned upright, at square pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.volumes import Volume, Volumes
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import KINDS, ImageHeader, check_size
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError

# Slices are cut across these axes of the volume in RAS+ orientation.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
VOLUMES = Volumes()
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
        raise UserError(f"data.parts={spec}: for NIfTI files, give {', '.join(AXES)}, or axial:4")
    volume = _volume(file)
    numbers = range(0, volume.shape[AXES[axis]], max(1, int(step or 1)))
    if volume.times > 1:
        return [f"{axis}={number},t={time}" for time in range(volume.times) for number in numbers]
    return [f"{axis}={number}" for number in numbers]


def _volume(file: ImageFile, to_be_read: bool = False) -> Volume:
    if file.data is not None and not os.path.isfile(file.path):
        return Volume.of_bytes(file.data)
    return (VOLUMES.to_be_read if to_be_read else VOLUMES.get)(file.local())


def _axis(part: str) -> str:
    fields = part_fields(part)
    return next((name for name in AXES if name in fields), "axial")


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size of a slice and kind of number, without the voxels."""
    volume = _volume(file)
    across, down = (n for n in range(3) if n != AXES[_axis(part)])
    rows, columns = _square_size(
        volume.shape[down], volume.shape[across], volume.zooms[down], volume.zooms[across]
    )
    if volume.dtype.names:
        return ImageHeader(rows, columns, False, "8 bits", "RGB")
    kind = KINDS.get(volume.dtype.kind, "float") if volume.plain else "float"
    return ImageHeader(rows, columns, True, kind, "F" if kind == "float" else "I;16")


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One slice; without a part the middle one. Rows run from above (or the front) downwards.

    Raises:
        ValueError: not a picture, or voxels of a structured type that is not a colour.
    """
    volume = _volume(file, to_be_read=True)
    fields, axis = part_fields(part), _axis(part)
    number = AXES[axis]
    size = volume.shape[number]
    place, time = int(fields.get(axis, size // 2)), int(fields.get("t", 0))
    if not 0 <= place < size:
        raise ValueError(f"there are {size} {axis} slices, and no slice {place}")
    if not 0 <= time < volume.times:
        raise ValueError(f"there are {volume.times} volumes in the file, and no volume {time}")
    across, down = (n for n in range(3) if n != number)
    rows, columns = volume.shape[down], volume.shape[across]
    spacing = volume.zooms[down], volume.zooms[across]
    size_shown = _square_size(rows, columns, *spacing)
    check_size(size_shown[1], size_shown[0])
    plane = volume.plane(number, place, time)
    if plane.dtype.names:
        plane = _colours(plane)
    # RAS+: the first axis runs to the right, the second to the front, the third upwards.
    plane = np.ascontiguousarray(np.rot90(plane))
    if size_shown != (rows, columns):
        plane, spacing = _resized(plane, size_shown), (min(spacing), min(spacing))
    plane = plane if plane.ndim == 3 else plane[..., None]
    names = ("grey",) if plane.shape[-1] == 1 else ("R", "G", "B", "A")[: plane.shape[-1]]
    return Planes(plane, names, spacing=spacing)


def _colours(plane: Any) -> Any:
    """(..., 3 or 4) of the types RGB24 and RGBA32."""
    names: Sequence[str] = plane.dtype.names
    if "".join(names) not in ("RGB", "RGBA"):
        raise ValueError(f"NIfTI voxels of {plane.dtype} are not colours")
    return np.stack([plane[name] for name in names], axis=-1)


def _square_size(rows: int, columns: int, down: float, across: float) -> tuple[int, int]:
    """(rows, columns) at square pixels: the coarser direction gets the finer one's spacing."""
    fine = min(down, across)
    if fine <= 0 or max(down, across) <= fine * _SQUARE:
        return rows, columns
    return round(rows * down / fine), round(columns * across / fine)


def _resized(plane: Any, size: tuple[int, int]) -> Any:
    wide = plane.astype(np.float64)
    resized = cv2.resize(wide, size[::-1], interpolation=cv2.INTER_LINEAR)
    whole = plane.dtype.kind in "ui"
    return (np.rint(resized) if whole else resized).astype(plane.dtype)
