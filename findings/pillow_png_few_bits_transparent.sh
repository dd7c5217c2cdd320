#!/usr/bin/env bash
# Pillow keeps grey PNGs of 2 and 4 bits opaque where their tRNS chunk names a transparent grey.
# Expected: converting to RGBA or LA makes the named grey transparent, at every bit depth that PNG allows.
# Happens: the samples are scaled to 8 bits when the file is read, the transparent grey is not. It then names
#   another grey (3 or 15 instead of 255), so the background stays opaque. At 1 and 8 bits it is right.
# Matters: drawings and masks on a transparent background are often written with few bits; laid over white or used
#   as an alpha mask, they show their background, and a dark grey can become transparent in its place.
# Run 2026-11-30 with Pillow 13.0.0, pypng 0.20220715.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 pypng==0.20220715.0 || exit 2

venv/bin/python -I - <<'PY'
import io
import sys

import PIL
import png
from PIL import Image

print("Pillow", PIL.__version__)
alphas = {}
for bits in (1, 2, 4, 8):
    white = 2**bits - 1
    file = io.BytesIO()
    writer = png.Writer(4, 1, greyscale=True, bitdepth=bits, transparent=white)
    writer.write(file, [[0, white, white, 0]])
    file.seek(0)
    with Image.open(file) as image:
        alphas[bits] = [pixel[3] for pixel in image.convert("RGBA").get_flattened_data()]
        named = image.info["transparency"]
        print(f"{bits} bits, transparent grey {white}: read as {named}, alpha {alphas[bits]}")
right, opaque = [255, 0, 0, 255], [255] * 4
as_stated = alphas == {1: right, 2: opaque, 4: opaque, 8: right}
sys.exit(0 if as_stated else "CHANGED: other depths are transparent")
PY
