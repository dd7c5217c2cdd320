#!/usr/bin/env bash
# Whether a WhiteIsZero TIFF is inverted depends on the reader, on the bit depth and on the flag.
# Expected: TIFF 6.0, PhotometricInterpretation 0: "0 is imaged as white". A reader inverts it or leaves
#   it to the caller, either way for all bit depths.
# Happens: tifffile and rasterio never invert. Pillow inverts 1 and 8 bits but not 16. OpenCV inverts 8
#   bits with every flag, and 16 bits with IMREAD_GRAYSCALE but not with IMREAD_UNCHANGED.
# Matters: scanned film, gels and X-ray plates are written so. Two loaders, or one loader at two bit
#   depths, give negatives of each other, and augmentation and statistics never notice.
# Run 2026-11-29 with opencv-python-headless 5.0.0.93, Pillow 13.0.0, tifffile 2026.3.3, rasterio 1.4.4.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  opencv-python-headless==5.0.0.93 pillow==13.0.0 tifffile==2026.3.3 rasterio==1.4.4 numpy==2.4.6 || exit 2

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
found = {}
for kind in ("uint8", "uint16"):
    ramp = np.linspace(0, np.iinfo(kind).max, 64).astype(kind).reshape(8, 8)
    tifffile.imwrite("x.tif", ramp, photometric="miniswhite")
    read = {
        "tifffile": tifffile.imread("x.tif"),
        "rasterio": rasterio.open("x.tif").read(1),
        "Pillow": np.asarray(Image.open("x.tif")),
        "OpenCV unchanged": cv2.imread("x.tif", cv2.IMREAD_UNCHANGED),
        "OpenCV grayscale": cv2.imread("x.tif", cv2.IMREAD_GRAYSCALE),
    }
    for reader, pixels in read.items():
        found[kind, reader] = bool(pixels[0, 0] > pixels[-1, -1])
        print(f"{kind:6} {reader:17} {'inverted' if found[kind, reader] else 'as stored'}")
inverted = {case for case, value in found.items() if value}
stated = {("uint8", r) for r in ("Pillow", "OpenCV unchanged", "OpenCV grayscale")}
stated |= {("uint16", "OpenCV grayscale")}
sys.exit(0 if inverted == stated else f"CHANGED: inverted are {sorted(inverted)}")
PY
