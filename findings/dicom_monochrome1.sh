#!/usr/bin/env bash
# SimpleITK inverts MONOCHROME1 images, pydicom does not.
# Expected: both return the stored values, as both do for MONOCHROME2. The DICOM standard (PS3.3,
#   C.7.6.3.1.2) says only that the lowest value is shown white: it is a matter of display.
# Happens: SimpleITK returns 2^BitsStored - 1 - value. The metadata still say MONOCHROME1, so code that
#   inverts such images because of the tag inverts them back.
# Matters: many digital X-rays are MONOCHROME1. The two readers give one encoder negatives of each
#   other, and a training set that was read by both has both.
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


print("pydicom", pydicom.__version__, "SimpleITK", sitk.Version.VersionString())
values = np.array([[0, 1], [1000, 4095]], "uint16")
read = {}
for kind in ("MONOCHROME1", "MONOCHROME2"):
    write("x.dcm", values, PhotometricInterpretation=kind)
    image = sitk.ReadImage("x.dcm")
    read[kind] = (pydicom.dcmread("x.dcm").pixel_array, sitk.GetArrayFromImage(image)[0])
    print(kind, "pydicom", read[kind][0].ravel().tolist(), "SimpleITK", read[kind][1].ravel().tolist())
    print("  SimpleITK's metadata say", image.GetMetaData("0028|0004"))
stated = np.array_equal(read["MONOCHROME1"][1], 4095 - values)
stated = stated and all(np.array_equal(a, values) for a in (read["MONOCHROME1"][0], *read["MONOCHROME2"]))
sys.exit(0 if stated else f"CHANGED: {read}")
PY
