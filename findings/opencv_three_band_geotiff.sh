#!/usr/bin/env bash
# OpenCV reads a 16-bit GeoTIFF of three or four bands as one grey image, with IMREAD_UNCHANGED.
# Expected: "unchanged" keeps the channels, as tifffile and rasterio do.
# Happens: GDAL gives byte images of three bands the photometric interpretation RGB, but uint16 ones
#   MinIsBlack with extra samples (both are valid TIFF). OpenCV then returns shape (H, W): the bands
#   weighted 0.299, 0.587 and 0.114 into one, as if they were red, green and blue.
# Matters: a multispectral image becomes a plausible grey one, and a pipeline that repeats grey images
#   to three channels trains on it. Whether it happens depends on the bit depth only.
# Run 2026-11-29 with opencv-python-headless 5.0.0.93, rasterio 1.4.4, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  opencv-python-headless==5.0.0.93 rasterio==1.4.4 tifffile==2026.3.3 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import warnings

import cv2
import numpy as np
import rasterio
import tifffile

warnings.simplefilter("ignore")  # no geotransform: it does not matter here
print("OpenCV", cv2.__version__, "rasterio", rasterio.__version__)
values = {"uint8": (20, 40, 60, 80), "uint16": (1000, 4000, 9000, 100)}
seen = {}
for kind, pixel in values.items():
    for count in (3, 4):
        bands = np.ones((count, 32, 32), kind) * np.array(pixel[:count], kind)[:, None, None]
        meta = dict(driver="GTiff", width=32, height=32, count=count, dtype=kind)
        with rasterio.open("x.tif", "w", **meta) as out:
            out.write(bands)
        image = cv2.imread("x.tif", cv2.IMREAD_UNCHANGED)
        seen[kind, count] = image.shape
        shape = tifffile.imread("x.tif").shape
        print(f"{count} bands {kind}: tifffile {shape}, OpenCV {image.shape}, pixel {image[0, 0]}")
        if (kind, count) == ("uint16", 3):
            grey = image.ravel()[0]
mixed = 0.299 * 1000 + 0.587 * 4000 + 0.114 * 9000
print(f"0.299 x first + 0.587 x second + 0.114 x third = {mixed:.0f}")
stated = [seen["uint16", 3], seen["uint16", 4]] == [(32, 32)] * 2 and abs(grey - mixed) < 2
stated = stated and seen["uint8", 3] == (32, 32, 3)
sys.exit(0 if stated else f"CHANGED: {seen}, grey {grey}")
PY
