#!/usr/bin/env bash
# SimpleITK gives a DICOM series the pixel type of its first slice and wraps the rest into it.
# Expected: slices with rescales of their own, as PET has, give a volume of floats with the values that
#   each slice has when it is read alone.
# Happens: if the first slice has slope 1, the volume is 16-bit and the other slices are truncated
#   (0.75 becomes 0), and negative or large values wrap around (-1000 becomes 64536). With another slice
#   first the same files give floats and the right values. There is no warning.
# Matters: uptake below one vanishes and air becomes the brightest tissue, in some patients only: it
#   depends on which slice comes first.
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


print("SimpleITK", sitk.Version.VersionString())
stored = np.array([[1, 2], [3, 4000]], "uint16")
slices = {"first": ("1", "0"), "fractions": ("0.25", "0"), "negative": ("1", "-1001")}
alone, volumes = {}, {}
for order in (["first", "fractions", "negative"], ["fractions", "negative", "first"]):
    for z, name in enumerate(order):
        rescale = dict(zip(("RescaleSlope", "RescaleIntercept"), slices[name]))
        write(f"{name}.dcm", stored, ImagePositionPatient=[0, 0, z], **rescale)
        alone[name] = sitk.GetArrayFromImage(sitk.ReadImage(f"{name}.dcm"))[0].ravel().tolist()
    image = sitk.ReadImage([f"{name}.dcm" for name in order])
    pixels = sitk.GetArrayFromImage(image)
    volumes[order[0]] = {name: pixels[i].ravel().tolist() for i, name in enumerate(order)}
    print(f"{image.GetPixelIDTypeAsString()}: {volumes[order[0]]}")
print(f"each read alone: {alone}")
stated = volumes["first"]["fractions"] == [0, 0, 0, 1000]
stated = stated and volumes["first"]["negative"][0] == 65536 - 1000
stated = stated and volumes["fractions"] == alone
sys.exit(0 if stated else "CHANGED")
PY
