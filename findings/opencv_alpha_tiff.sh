#!/usr/bin/env bash
# OpenCV multiplies the colours of 8-bit TIFFs by their fourth band.
# Expected: by OpenCV's documentation IMREAD_UNCHANGED returns the image as it is, with its alpha
#   channel, and IMREAD_COLOR three channels. Both do so for the same image as a PNG.
# Happens: a TIFF whose fourth sample is unassociated alpha has its colours multiplied by alpha / 255,
#   with both flags, at 8 bits. At 16 bits IMREAD_UNCHANGED leaves them alone. rasterio (GDAL) marks
#   the fourth band of every 4-band byte GeoTIFF as alpha, so red, green, blue, near infrared is hit.
# Matters: satellite tiles come out dark where the infrared is dark; statistics, augmentation and
#   features of the colour bands then depend on the fourth one.
# Run 2026-11-29 with opencv-python-headless 5.0.0.93, rasterio 1.4.4, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  opencv-python-headless==5.0.0.93 rasterio==1.4.4 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import warnings

import cv2
import numpy as np
import rasterio

warnings.simplefilter("ignore")  # no geotransform: it does not matter here
print("OpenCV", cv2.__version__, "rasterio", rasterio.__version__)
red, green, blue, infrared = 40, 80, 120, 100
bands = np.ones((4, 32, 32), "uint8") * np.array([red, green, blue, infrared], "uint8")[:, None, None]
with rasterio.open("x.tif", "w", driver="GTiff", width=32, height=32, count=4, dtype="uint8") as out:
    out.write(bands)
with rasterio.open("x.tif") as source:
    print("written and read by rasterio:", source.read()[:, 0, 0].tolist(), source.colorinterp)
cv2.imwrite("x.png", np.moveaxis(bands[[2, 1, 0, 3]], 0, -1))
seen = {}
for name in ("x.png", "x.tif"):
    for flag in ("IMREAD_UNCHANGED", "IMREAD_COLOR"):
        seen[name, flag] = cv2.imread(name, getattr(cv2, flag))[0, 0].tolist()
        print(name, flag, "blue, green, red:", seen[name, flag])
factor = seen["x.tif", "IMREAD_UNCHANGED"][0] / blue
stated = abs(factor - infrared / 255) < 0.02 and seen["x.png", "IMREAD_UNCHANGED"][0] == blue
sys.exit(0 if stated else f"CHANGED: factor {factor:.3f}")
PY
