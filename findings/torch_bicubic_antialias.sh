#!/usr/bin/env bash
# In PyTorch, antialias=True changes bicubic enlargement too, though there is nothing to antialias.
# Expected: a low-pass filter acts when an image is made smaller. The documentation of interpolate speaks
#   of matching Pillow in downsampling; for bilinear enlargement the flag changes nothing.
# Happens: the bicubic kernel itself differs: -0.5 is its parameter with the flag (as in Pillow), -0.75
#   without (as in OpenCV), also when enlarging. An impulse of 1 differs by 0.03.
# Matters: position embeddings are enlarged for larger images. Libraries that pass the flag (timm) and
#   that do not (the first DINO code) get different embeddings, and features, from one checkpoint.
# Run 2026-11-29 with torch 2.13.0, Pillow 13.0.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torch==2.13.0 pillow==13.0.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import PIL
import torch
from PIL import Image
from torch.nn.functional import interpolate

print("torch", torch.__version__, "Pillow", PIL.__version__)
impulse = torch.zeros(1, 1, 8, 8)
impulse[0, 0, 4, 4] = 1
change = {}
for mode in ("bilinear", "bicubic"):
    plain = interpolate(impulse, size=(16, 16), mode=mode)
    flagged = interpolate(impulse, size=(16, 16), mode=mode, antialias=True)
    change[mode] = (plain - flagged).abs().max().item()
    print(f"{mode}, 8 to 16 pixels: antialias=True changes values by up to {change[mode]:.4f}")
picture = Image.fromarray(impulse[0, 0].numpy())
pillow = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
same = np.allclose(pillow, flagged[0, 0].numpy(), atol=1e-6)
print("with the flag it equals Pillow's BICUBIC:", same)


def weight(parameter, x):
    """Keys' cubic kernel at |x| < 1."""
    return (parameter + 2) * x**3 - (parameter + 3) * x**2 + 1


for parameter, result in ((-0.75, plain), (-0.5, flagged)):
    expected = weight(parameter, 0.25) ** 2
    print(f"parameter {parameter}: expected {expected:.4f}, computed {result[0, 0, 8, 8].item():.4f}")
    same = same and abs(expected - result[0, 0, 8, 8].item()) < 1e-4
sys.exit(0 if change["bilinear"] == 0 and 0.03 < change["bicubic"] < 0.04 and same else "CHANGED")
PY
