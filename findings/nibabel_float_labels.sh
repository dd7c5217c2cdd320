#!/usr/bin/env bash
# nibabel changes the labels of a segmentation that is saved from floats into an integer type.
# Expected: labels 0, 3 and 7 fit into uint8, so float64 labels 0.0, 3.0, 7.0 under a uint8 header are
#   stored as they are; the manual speaks of scaling for values that need it.
# Happens: floats are always stretched over the whole range of the integer type: 0, 109 and 255 with a
#   slope. Read back, label 3 is 2.992..., and .astype(int) makes it 2. An integer array is saved exactly.
# Matters: get_fdata() gives floats, so "load, edit, save like the original" does this to every mask:
#   pixels of one class of a segmentation benchmark move to another.
# Run 2026-11-29 with nibabel 5.4.2, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  nibabel==5.4.2 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import nibabel as nib
import numpy as np

print("nibabel", nib.__version__)
original = np.zeros((8, 8, 8), "uint8")
original[2], original[5] = 3, 7
nib.save(nib.Nifti1Image(original, np.eye(4)), "mask.nii")
mask = nib.load("mask.nii")
nib.save(nib.Nifti1Image(mask.get_fdata(), mask.affine, mask.header), "again.nii")
saved = nib.load("again.nii")
print("stored type", saved.get_data_dtype(), "stored", np.unique(saved.dataobj.get_unscaled()))
changed = np.unique(saved.get_fdata().astype(int)).tolist()
print("read back", np.unique(saved.get_fdata()), "as int", changed)
nib.save(nib.Nifti1Image(original, mask.affine, mask.header), "exact.nii")
exact = np.array_equal(nib.load("exact.nii").get_fdata(), original)
print("an integer array is saved exactly:", exact)
sys.exit(0 if changed == [0, 2, 7] and exact else f"CHANGED: labels are now {changed}")
PY
