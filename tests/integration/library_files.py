"""The test files that come with pydicom, nibabel and astropy, read by us and by the library."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.bench.format_cases import ours
from convit_ssl.data.readers import parts_of
from convit_ssl.data.reading.value_range import Reading

Array = np.ndarray[Any, Any]


def _dicom_files() -> Iterator[Path]:
    import pydicom.data

    yield from Path(pydicom.data.__file__).parent.glob("test_files/*.dcm")


def _dicom(path: str) -> list[Array]:
    import pydicom
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    data = pydicom.dcmread(path, force=True)
    frames = data.pixel_array
    frames = frames if int(data.get("NumberOfFrames", 1) or 1) > 1 else frames[None]
    if data.PhotometricInterpretation == "PALETTE COLOR":
        return [apply_color_lut(frame, data) for frame in frames]
    return [f if f.ndim == 3 else apply_modality_lut(f, data)[..., None] for f in frames]


def _nifti_files() -> Iterator[Path]:
    import nibabel

    # One of them has voxels of 2 x 1 mm: its slices are brought to square pixels.
    for path in Path(nibabel.__file__).parent.rglob("*.nii*"):
        if path.name != "standard.nii.gz":
            yield path


def _nifti(path: str) -> list[Array]:
    import nibabel

    turned: Any = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    values = np.asanyarray(turned.dataobj)
    values = values[..., None] if values.ndim == 3 else values
    planes = [values[:, :, z, t] for t in range(values.shape[3]) for z in range(values.shape[2])]
    return [np.rot90(plane)[..., None] for plane in planes]


def _fits_files() -> Iterator[Path]:
    import astropy  # type: ignore[import-untyped]

    yield from Path(astropy.__file__).parent.rglob("*.fits")


def _fits(path: str) -> list[Array]:
    from astropy.io import fits  # type: ignore[import-untyped]

    with fits.open(path) as units:
        for unit in units:
            if unit.is_image and unit.header.get("NAXIS", 0) >= 2:
                values = np.asarray(unit.data)
                if not values.size:
                    break
                while values.ndim > 2 and len(values) == 1:
                    values = values[0]
                values = values[None] if values.ndim == 2 else values
                return [np.moveaxis(values[:, ::-1], 0, -1)]
    raise ValueError("no image")


Read = Callable[[str], list[Array]]
LIBRARIES: dict[str, tuple[Callable[[], Iterator[Path]], Read]] = {
    "pydicom": (_dicom_files, _dicom),
    "nibabel": (_nifti_files, _nifti),
    "astropy": (_fits_files, _fits),
}


def _ours(path: str) -> list[Array]:
    reading = Reading(depth="native")
    return [ours(f"{path}#{part}") for part in parts_of(path, reading)] or [ours(path)]


def _outcome(read: Read, path: str) -> list[Array] | None:
    """What is read; None where the file is refused."""
    with contextlib.suppress(Exception):
        return read(path)
    return None


def _same(one: list[Array], other: list[Array]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=b.dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )


def compare_library(name: str) -> dict[str, Any]:
    """Files and images that are equal, files that both refuse, and the names of all others."""
    files, library = LIBRARIES[name]
    found: dict[str, Any] = {"library": name, "files": 0, "images": 0, "refused": 0, "other": []}
    for path in sorted(files()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine, theirs = _outcome(_ours, str(path)), _outcome(library, str(path))
        if mine is None and theirs is None:
            found["refused"] += 1
        elif mine is None or theirs is None or not _same(mine, theirs):
            found["other"].append(path.name)
        else:
            found["files"] += 1
            found["images"] += len(mine)
    return found
