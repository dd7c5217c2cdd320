#!/usr/bin/env bash
# Pillow rotates 16-bit images into values below 256.
# Expected: Pillow lists "I;16" among its modes, resize() interpolates it as the same image in mode "F"
#   does, and rotate(), transform() take it with every filter.
# Happens: rotate() and transform() with NEAREST are right; with BILINEAR or BICUBIC every pixel is
#   between 0 and 255, whatever the image holds. The result is still mode "I;16", with no error.
# Matters: a random rotation or affine crop before the conversion to float makes 16-bit microscopy,
#   X-ray or depth images nearly black. Convert to "F" (or to an array) first.
# Run 2026-11-29 with Pillow 13.0.0, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
smooth = (np.add.outer(np.arange(64), np.arange(64)) * 400 + 10_000).astype("uint16")
image = Image.fromarray(smooth)
as_float = Image.fromarray(smooth.astype("float32"))
print("mode", image.mode, "values", smooth.min(), "to", smooth.max())


def centre(picture):
    return np.asarray(picture).astype("float64")[28:36, 28:36]


errors = {}
for name in ("NEAREST", "BILINEAR", "BICUBIC"):
    method = Image.Resampling[name]
    for what, change in {
        "rotate": lambda picture: picture.rotate(17, method),
        "affine": lambda picture: picture.transform(
            (64, 64), Image.Transform.AFFINE, (1, 0.1, 0, 0, 1, 0.3), method
        ),
        "resize": lambda picture: picture.resize((48, 48), method),
    }.items():
        ours, reference = centre(change(image)), centre(change(as_float))
        errors[what, name] = abs(ours - reference).max()
        print(f"{what:7}{name:9} 16-bit up to {ours.max():8.0f}, float up to {reference.max():8.0f}")
broken = {case for case, error in errors.items() if error > 1000}
stated = {(what, name) for what in ("rotate", "affine") for name in ("BILINEAR", "BICUBIC")}
sys.exit(0 if broken == stated else f"CHANGED: wrong are now {sorted(broken)}")
PY
