#!/usr/bin/env bash
# Pillow turns the brightest samples of colour JPEG 2000 files of more than 8 bits black.
# Expected: a colour image of 10, 12 or 16 bits opens as 8-bit RGB, the highest value as 255, as Pillow's 8-bit
#   images and its own grey images of these depths (mode I;16, scaled to 65535) do.
# Happens: shifting down to 8 bits rounds up first and wraps, so that the highest half step becomes 0. Everything
#   else is right. There is no warning.
# Matters: overexposed parts, white backgrounds and fill values of slides and satellite images come out black, in
#   every channel of its own: colours change where one channel is saturated.
# Run 2026-11-30 with Pillow 13.0.0, imagecodecs 2026.3.6, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import io
import sys

import imagecodecs
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
as_stated = True
for bits in (10, 12, 16):
    top = 2**bits - 1
    pixels = np.empty((8, 8, 3), "uint16")
    pixels[...] = top, top // 2 + 1, top // 4 + 1
    written = imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, bitspersample=bits)
    assert np.array_equal(imagecodecs.jpeg2k_decode(written), pixels)
    with Image.open(io.BytesIO(written)) as image:
        read = np.asarray(image)[0, 0].tolist()
        print(f"{bits} bits: written {pixels[0, 0].tolist()}, read as {image.mode} {read}")
    as_stated &= read == [0, 128, 64]
sys.exit(0 if as_stated else "CHANGED: the highest value is not read as 0")
PY
