#!/usr/bin/env bash
# Pillow reads uncompressed planar 16-bit RGB TIFFs as alternating low and high bytes.
# Expected: a 16-bit RGB TIFF opens as 8-bit RGB, the high byte of every sample, as it does when the
#   samples are interleaved (PlanarConfiguration 1). TIFF 6.0 allows planes (2) as well.
# Happens: with PlanarConfiguration 2 the even columns hold the low bytes and the odd ones the high
#   bytes, and the right half of the image is missing. Size and mode are right; there is no error.
# Matters: scanners and scientific cameras write planes; the result is a fine checkered noise over a
#   stretched left half, which every later stage takes for an image.
# Run 2026-11-29 with Pillow 13.0.0, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__)
column = np.arange(64, dtype="uint16") * 256 + 7  # high byte: the column; low byte: 7
planes = np.broadcast_to(column, (3, 40, 64)).copy()
tifffile.imwrite("planar.tif", planes, photometric="rgb", planarconfig="separate")
tifffile.imwrite("contiguous.tif", np.moveaxis(planes, 0, -1), photometric="rgb")
rows = {}
for name in ("contiguous", "planar"):
    with Image.open(f"{name}.tif") as image:
        rows[name] = np.asarray(image)[0, :, 0]
        print(f"{name:11} {image.mode} {image.size}, first row: {rows[name][:8].tolist()} ...")
good = np.array_equal(rows["contiguous"], np.arange(64))
mixed = (rows["planar"][::2] == 7).all() and np.array_equal(rows["planar"][1::2], np.arange(32))
sys.exit(0 if good and mixed else f"CHANGED: {rows}")
PY
