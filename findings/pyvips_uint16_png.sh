#!/usr/bin/env bash
# pyvips writes a uint16 NumPy array to PNG with 8 bits, and clips everything above 255 to white.
# Expected: the PNG has 16 bits, which the format has, or its values are shifted by 8 bits; TIFF from the same
#   image keeps them.
# Happens: new_from_array gives every one-band array the interpretation 'b-w', which is 8 bits for PNG; 'grey16'
#   is what 16-bit arrays need. The PNG is clipped, the TIFF keeps 16 bits, and there is no warning.
# Matters: 16-bit X-rays and microscope images become white wherever they are not nearly black.
# Run 2026-12-01 with pyvips 3.2.0, pyvips-binary 8.18.2, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pyvips==3.2.0 pyvips-binary==8.18.2 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import pyvips

print("pyvips", pyvips.__version__, "libvips", ".".join(str(pyvips.version(n)) for n in range(3)))
values = np.array([[0, 100, 255, 256, 1000, 30000, 65535]], np.uint16)
image = pyvips.Image.new_from_array(values)
found = {"interpretation": image.interpretation}
for form in ("png", "tif"):
    image.write_to_file(f"a.{form}")
    read = pyvips.Image.new_from_file(f"a.{form}")
    found[form] = (read.format, read.numpy().ravel().tolist())
image.copy(interpretation="grey16").write_to_file("b.png")
read = pyvips.Image.new_from_file("b.png")
found["png of grey16"] = (read.format, read.numpy().ravel().tolist())
for name, one in found.items():
    print(f"{name}: {one}")
whole = ("ushort", values.ravel().tolist())
clipped = ("uchar", [0, 100, 255, 255, 255, 255, 255])
stated = found == {
    "interpretation": "b-w", "png": clipped, "tif": whole, "png of grey16": whole,
}  # fmt: skip
sys.exit(0 if stated else f"CHANGED: {found}")
PY
