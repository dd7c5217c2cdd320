#!/usr/bin/env bash
# SimpleITK ignores a Modality LUT, although it applies the rescale slope.
# Expected: a reader that turns stored values into the modality's values does it in both forms that the
#   DICOM standard (PS3.3, C.11.1) allows: slope and intercept, or a table. pydicom's
#   apply_modality_lut applies either.
# Happens: SimpleITK applies slope and intercept on reading, but returns the stored values, without a
#   warning, for an image whose transform is given as ModalityLUTSequence.
# Matters: digitised film and some X-ray devices use tables. Intensities of two devices in one data
#   set are then on different scales, and a fixed window or mean is wrong for one of them.
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
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


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


def both(path):
    ds = pydicom.dcmread(path)
    ours = apply_modality_lut(ds.pixel_array, ds).ravel().tolist()
    return ours, sitk.GetArrayFromImage(sitk.ReadImage(path)).ravel().tolist()


print("pydicom", pydicom.__version__, "SimpleITK", sitk.Version.VersionString())
values = np.array([[0, 1], [2, 3]], "uint16")
table = Dataset()
table.add_new("LUTDescriptor", "US", [4, 0, 16])
table.ModalityLUTType = "OD"
table.add_new("LUTData", "US", [10, 20, 30, 40])
write("table.dcm", values, ModalityLUTSequence=[table])
write("slope.dcm", values, RescaleSlope="10", RescaleIntercept="10", RescaleType="OD")
for name in ("slope", "table"):
    print(f"{name}: pydicom {both(name + '.dcm')[0]}, SimpleITK {both(name + '.dcm')[1]}")
stated = both("table.dcm") == ([10, 20, 30, 40], [0, 1, 2, 3])
stated = stated and both("slope.dcm") == ([10, 20, 30, 40], [10, 20, 30, 40])
sys.exit(0 if stated else "CHANGED")
PY
