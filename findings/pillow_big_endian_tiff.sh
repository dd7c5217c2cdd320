#!/usr/bin/env bash
# Pillow returns compressed big-endian TIFFs with swapped bytes.
# Expected: TIFF 6.0 stores the byte order in the file's first two bytes ("II" or "MM"), and a reader
#   returns the same numbers for both. tifffile does; Pillow does for uncompressed files.
# Happens: with LZW or Deflate, big-endian int16, int32 and float32 images come back with the bytes of
#   every pixel reversed (256 becomes 1). There is no error and no warning. uint16 is read correctly.
# Matters: microscopes and older Macintosh software write such files. A float image turns into noise
#   and denormals, an int16 image into plausible contrast: pretraining runs on it without complaint.
# Run 2026-11-29 with Pillow 13.0.0, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
pixels = np.arange(64 * 64).reshape(64, 64)
right = {}
for kind in ("u2", "i2", "i4", "f4"):
    for order in "<>":
        for compression in (None, "lzw", "zlib"):
            written = pixels.astype(order + kind)
            tifffile.imwrite("x.tif", written, byteorder=order, compression=compression)
            assert np.array_equal(tifffile.imread("x.tif"), written)
            read = np.asarray(Image.open("x.tif"))
            right[kind, order, compression] = np.array_equal(read, written)
            print(f"{order}{kind} {compression or 'uncompressed':12}: pixel 256 is read as {read[4, 0]}")
wrong = {case for case, same in right.items() if not same}
stated = {(kind, ">", c) for kind in ("i2", "i4", "f4") for c in ("lzw", "zlib")}
sys.exit(0 if wrong == stated else f"CHANGED: read wrongly are now {sorted(wrong, key=str)}")
PY
