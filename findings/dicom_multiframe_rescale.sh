#!/usr/bin/env bash
# Rescale in enhanced multi-frame DICOM: pydicom ignores it, SimpleITK uses the first frame's for all.
# Expected: apply_modality_lut (pydicom) and ReadImage (SimpleITK) give the modality's values, as they do
#   for single-frame files. Enhanced CT, MR and PET keep slope and intercept in functional groups,
#   shared or per frame (PS3.3, C.7.6.16.2.9).
# Happens: pydicom looks at the top level only and returns stored values in both cases. SimpleITK
#   applies a shared rescale; of one per frame it applies the first frame's to every frame. No warning.
# Matters: "Hounsfield units" of enhanced files are off by 1000, and frames of PET are on scales that
#   differ by factors; a window such as [-1000, 400] then cuts away nearly everything.
# Run 2026-11-29 with pydicom 3.0.2, SimpleITK 2.5.7, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)


def write(path, pixels, **fields):
    """A small, valid CT file with these pixels and fields."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = fields.pop("sop_class", CTImageStorage)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3", "1.2.3.4", "CT"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = *pixels.shape[-2:], 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    for name, value in fields.items():
        setattr(ds, name, value)
    ds.PixelData = pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)


def group(slope, intercept):
    transform, item = Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = str(slope), str(intercept)
    transform.RescaleType = "HU"
    item.PixelValueTransformationSequence = [transform]
    return item


def both(path):
    ds = pydicom.dcmread(path)
    ours = apply_modality_lut(ds.pixel_array, ds)
    return ours.tolist(), sitk.GetArrayFromImage(sitk.ReadImage(path)).tolist()


print("pydicom", pydicom.__version__, "SimpleITK", sitk.Version.VersionString())
stored = np.arange(8, dtype="uint16").reshape(2, 2, 2)
frames = dict(sop_class=EnhancedCTImageStorage, NumberOfFrames=2)
write("shared.dcm", stored, SharedFunctionalGroupsSequence=[group(2, -1000)], **frames)
write(
    "frames.dcm",
    stored,
    SharedFunctionalGroupsSequence=[Dataset()],
    PerFrameFunctionalGroupsSequence=[group(2, -1000), group(10, -1000)],
    **frames,
)
for name in ("shared", "frames"):
    ours, itk = both(f"{name}.dcm")
    print(f"rescale {name}: stored {stored.tolist()}\n  pydicom   {ours}\n  SimpleITK {itk}")
raw = stored.tolist()
stated = both("shared.dcm") == (raw, (2.0 * stored - 1000).tolist())
first_for_all = (2.0 * stored - 1000).tolist()
stated = stated and both("frames.dcm") == (raw, first_for_all)
sys.exit(0 if stated else "CHANGED")
PY
