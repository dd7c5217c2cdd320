#!/usr/bin/env bash
# numpy.take copies a whole volume to give one slice of it, if the volume is in Fortran order, as nibabel's are.
# Expected: np.take(volume, 50, axis=2) costs what volume[..., 50] costs; numpy's documentation calls take
#   "equivalent to fancy indexing", and `volume[..., [50]]` copies one slice.
# Happens: an array that is not C-contiguous is first copied as a whole: 13 MB for a slice of 131 kB, each time.
# Matters: nibabel gives volumes in Fortran order, and "one slice along a chosen axis" is most easily written
#   with take. A loader that draws slices then reads and writes the whole volume for each of them.
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
import tracemalloc

import nibabel as nib
import numpy as np

print("nibabel", nib.__version__, "numpy", np.__version__)
nib.save(nib.Nifti1Image(np.zeros((256, 256, 100), "int16"), np.eye(4)), "scan.nii.gz")
volume = np.asanyarray(nib.load("scan.nii.gz").dataobj)
print("Fortran order:", volume.flags.f_contiguous, "bytes:", volume.nbytes)


def peak(read):
    tracemalloc.start()
    read()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


take = peak(lambda: np.take(volume, 50, axis=2))
fancy = peak(lambda: volume[..., [50]])
print("memory for one slice: take", take, "fancy index", fancy)
same = take >= volume.nbytes and fancy < volume.nbytes / 50
sys.exit(0 if same else f"CHANGED: take needs {take} bytes, a fancy index {fancy}")
PY
