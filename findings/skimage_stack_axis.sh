#!/usr/bin/env bash
# scikit-image moves the slices of a TIFF stack to the end of the array, if there are 3 or 4 of them.
# Expected: (slices, height, width) for every stack, as tifffile and imageio have it, whose reader it uses.
# Happens: an array of three axes whose first has a length of 3 or 4 is taken for channels first, and the axis goes
#   to the end. Stacks of 2 and of 5 slices stay as they are. The file says that its axes are slices.
# Matters: in a collection of z-stacks those of 3 and 4 slices come out as colour images, and a projection over
#   the first axis is then one over rows.
# Run 2026-12-01 with scikit-image 0.26.0, tifffile 2026.3.3, imageio 2.37.2, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  scikit-image==0.26.0 tifffile==2026.3.3 imageio==2.37.2 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import imageio.v3 as imageio
import numpy as np
import skimage
import tifffile
from skimage import io

print("scikit-image", skimage.__version__, "tifffile", tifffile.__version__)
found = {}
for slices in (2, 3, 4, 5):
    stack = np.zeros((slices, 20, 30), np.uint16)
    stack[1] = 7
    tifffile.imwrite("a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile("a.tif") as file:
        axes = file.series[0].axes
    shapes = (io.imread("a.tif").shape, tifffile.imread("a.tif").shape, imageio.imread("a.tif").shape)
    found[slices] = (axes, *shapes)
    print(f"{slices} slices, axes {axes}: scikit-image, tifffile, imageio: {shapes}")
stated = all(
    found[slices][0] == "ZYX"
    and found[slices][2] == found[slices][3] == (slices, 20, 30)
    and found[slices][1] == ((20, 30, slices) if slices in (3, 4) else (slices, 20, 30))
    for slices in found
)
sys.exit(0 if stated else f"CHANGED: {found}")
PY
