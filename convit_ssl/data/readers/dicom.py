"""DICOM by pydicom: rescaled values, MONOCHROME1, the file's window, frames, compressed pixels."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space
from pydicom.pixels.utils import pixel_array

from convit_ssl.data.listing.part_names import part_fields
from convit_ssl.data.readers import ImageFile
from convit_ssl.data.readers.handles import Handles
from convit_ssl.data.reading.planes import Planes
from convit_ssl.data.reading.raw_image import ImageHeader, check_size
from convit_ssl.data.reading.value_range import Range, Reading


def _open_header(path: str) -> Any:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True)


# Of files of many frames, of which one after the other is read.
_HEADERS = Handles(_open_header, 16)


def _open(file: ImageFile, pixels: bool) -> Any:
    if file.data is None and not pixels and os.path.isfile(file.path):
        return _HEADERS.get(file.path)
    return pydicom.dcmread(io.BytesIO(file.bytes()), stop_before_pixels=not pixels, force=True)


def header(file: ImageFile, part: str) -> ImageHeader:
    """Size and kind of number, without the pixels."""
    data = _open(file, False)
    grey = int(data.get("SamplesPerPixel", 1)) == 1
    slope = _slope(_of_frame(data, _frame(part), "PixelValueTransformationSequence"))
    signed = int(data.get("PixelRepresentation", 0)) == 1 or slope[1] < 0
    eight = int(data.BitsAllocated) <= 8 and slope == (1.0, 0.0)
    kind = "8 bits" if eight else "signed" if signed else "unsigned"
    return ImageHeader(int(data.Rows), int(data.Columns), grey, kind, "L" if grey else "RGB")


def parts(file: ImageFile, spec: str) -> list[str]:
    """Frames of a multi-frame file: all, every n-th (``frame:4``), or the first (``first``)."""
    frames = int(_open(file, False).get("NumberOfFrames", 1) or 1)
    if frames < 2 or spec == "first":
        return []
    return [f"frame={number}" for number in range(0, frames, step_of(spec, "frame"))]


def step_of(spec: str, name: str) -> int:
    """The step in ``name:step``; 1 if there is none."""
    axis, _, step = spec.partition(":")
    return max(1, int(step)) if axis in (name, "") and step.isdigit() else 1


def read(file: ImageFile, part: str, reading: Reading) -> Planes:
    """One frame, in the units that the rescale slope and intercept give (Hounsfield for CT)."""
    frame = _frame(part)
    if file.data is None and os.path.isfile(file.path):  # one frame of several
        data = _open(file, False)
        check_size(int(data.Columns), int(data.Rows))
        return _planes(pixel_array(file.path, index=frame, raw=True), data, frame)
    data = _open(file, True)
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("the DICOM file contains no image")
    check_size(int(data.Columns), int(data.Rows))
    several = int(data.get("NumberOfFrames", 1) or 1) > 1
    values = pixel_array(data, index=frame if several else None, raw=True)
    return _planes(values, data, frame)


def _planes(values: Any, data: Any, frame: int) -> Planes:
    """Stored values of a frame as colours, or in units."""
    meaning = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if values.ndim == 3 and meaning.startswith("YBR"):
        values = convert_color_space(values, _decoded(data, meaning), "RGB")
        meaning = "RGB"
    if meaning == "PALETTE COLOR":
        values = apply_color_lut(values, data)
    inverted = meaning == "MONOCHROME1"
    valid = None
    if values.ndim == 2:
        valid = _valid(values, data)
        values = _rescaled(values, data, frame)[..., None]
    grey = values.shape[-1] == 1
    return Planes(
        values,
        ("grey",) if grey else ("R", "G", "B"),
        valid,
        inverted,
        _window(_of_frame(data, frame, "FrameVOILUTSequence")) if grey else None,
        _spacing(_of_frame(data, frame, "PixelMeasuresSequence")),
    )


def _frame(part: str) -> int:
    return int(part_fields(part).get("frame", 0))


def _of_frame(data: Any, frame: int, name: str) -> Any:
    """What describes a frame: in files of the enhanced kinds a group of its own, or all frames'."""
    groups = data.get("PerFrameFunctionalGroupsSequence") or []
    shared = data.get("SharedFunctionalGroupsSequence") or []
    for group in (*groups[frame : frame + 1], *shared[:1]):
        found = group.get(name)
        if found:
            return found[0]
    return data


def _valid(values: Any, data: Any) -> Any:
    """(H, W), False in the padding around a picture; None without any."""
    first = data.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    last = data.get("PixelPaddingRangeLimit", first)
    signed = int(data.get("PixelRepresentation", 0)) == 1
    ends = []
    for end in (first, last):
        # Written as unsigned by some, whatever the pixels are.
        size = 1 << int(data.BitsAllocated)
        ends.append(int(end) - size if signed and int(end) >= size // 2 else int(end))
    low, high = min(ends), max(ends)
    padding = values == low if low == high else (values >= low) & (values <= high)
    return ~padding if padding.any() and not padding.all() else None


def _decoded(data: Any, meaning: str) -> str:
    """The colours as pydicom leaves them: JPEG 2000's own transform is undone by the decoder."""
    return "RGB" if meaning in ("YBR_ICT", "YBR_RCT") else meaning


def _slope(data: Any) -> tuple[float, float]:
    return float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)


def _rescaled(values: Any, data: Any, frame: int) -> Any:
    """Stored values to units; whole numbers stay whole."""
    if "ModalityLUTSequence" in data:
        return apply_modality_lut(values, data)
    slope, intercept = _slope(_of_frame(data, frame, "PixelValueTransformationSequence"))
    if (slope, intercept) == (1.0, 0.0):
        return values
    scaled = values.astype(np.float64) * slope + intercept
    if slope.is_integer() and intercept.is_integer():
        small = scaled.min() >= -32768 and scaled.max() <= 32767
        return scaled.astype(np.int16 if small else np.int32)
    return scaled.astype(np.float32)


def _window(data: Any) -> Range | None:
    """(black, white) of the first window, as DICOM PS3.3 C.11.2.1.2 defines it."""
    centre, width = data.get("WindowCenter"), data.get("WindowWidth")
    if centre is None or width is None:
        return None
    first = [v[0] if isinstance(v, pydicom.multival.MultiValue) else v for v in (centre, width)]
    middle, size = float(first[0]), float(first[1])
    if size < 1:
        return None
    low = middle - 0.5 - (size - 1) / 2
    return low, low + max(size - 1, 1.0)


def _spacing(data: Any) -> tuple[float, float] | None:
    found = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
    return (float(found[0]), float(found[1])) if found else None
