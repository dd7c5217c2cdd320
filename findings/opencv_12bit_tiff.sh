#!/usr/bin/env bash
# OpenCV multiplies packed 12-bit TIFF samples by 16.
# Expected: IMREAD_UNCHANGED returns the stored numbers, as tifffile, rasterio and Pillow do (0-4095).
# Happens: OpenCV returns 0, 16, 32, ... 65520. Of the four readers it alone rescales, and it does
#   not do so for 12-bit values that are stored in 16 bits.
# Matters: thresholds, windows and normalisation statistics of 12-bit cameras are off by 16 when one
#   part of a pipeline reads with OpenCV and another with tifffile, and files of both layouts mix.
# Run 2026-11-29 with opencv-python-headless 5.0.0.93, Pillow 13.0.0, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  opencv-python-headless==5.0.0.93 pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 rasterio==1.4.4 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import warnings

import cv2
import numpy as np
import PIL
import rasterio
import tifffile
from PIL import Image

warnings.simplefilter("ignore")  # no geotransform: it does not matter here
print("OpenCV", cv2.__version__, "Pillow", PIL.__version__, "tifffile", tifffile.__version__)
values = np.arange(4096, dtype="uint16").reshape(64, 64)
meta = dict(driver="GTiff", width=64, height=64, count=1, dtype="uint16")
for name, options in {"packed": {"nbits": 12}, "in 16 bits": {}}.items():
    with rasterio.open("x.tif", "w", **meta, **options) as out:
        out.write(values, 1)
    read = {
        "rasterio": rasterio.open("x.tif").read(1),
        "tifffile": tifffile.imread("x.tif"),
        "Pillow": np.asarray(Image.open("x.tif")),
        "OpenCV": cv2.imread("x.tif", cv2.IMREAD_UNCHANGED),
    }
    factors = {reader: float(pixels[-1, -1]) / 4095 for reader, pixels in read.items()}
    print(f"{name}: factor {factors}")
    if name == "packed":
        stated = np.array_equal(read["OpenCV"], values * 16)
    else:
        stated = stated and factors["OpenCV"] == 1
stated = stated and factors["tifffile"] == factors["Pillow"] == 1
sys.exit(0 if stated else "CHANGED: OpenCV no longer multiplies packed samples only")
PY
