#!/usr/bin/env bash
# Some Albumentations transforms turn a uint16 image into floats of another range, without an error.
# Expected: the docstrings list uint8 and float32 as image types. So uint16 raises, as it does in Posterize
#   and Equalize, or it is handled, as in RandomBrightnessContrast and InvertImg.
# Happens: RandomGamma returns float64 up to 256 times the largest uint16, Downscale and AutoContrast
#   return float32 between 0 and 255.
# Matters: an image for which the transform was drawn (p=0.2, say) is 256 times as bright or as dark as
#   its neighbours in the batch. Nothing stops the training.
# Run 2026-11-29 with albumentations 2.0.8, opencv-python-headless 5.0.0.93, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  albumentations==2.0.8 opencv-python-headless==5.0.0.93 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import os
import sys

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import numpy as np

print("albumentations", A.__version__)
image = np.linspace(0, 65535, 64 * 64 * 3).astype("uint16").reshape(64, 64, 3)
transforms = {
    "RandomBrightnessContrast": A.RandomBrightnessContrast((0.1, 0.1), (0, 0), p=1),
    "InvertImg": A.InvertImg(p=1),
    "Posterize": A.Posterize(num_bits=4, p=1),
    "Equalize": A.Equalize(p=1),
    "RandomGamma": A.RandomGamma((150, 150), p=1),
    "Downscale": A.Downscale(p=1),
    "AutoContrast": A.AutoContrast(p=1),
}
found = {}
for name, transform in transforms.items():
    try:
        result = A.Compose([transform], seed=0)(image=image)["image"]
    except Exception as error:  # whatever it is, it is not silent
        found[name] = "raises"
        print(f"{name}: {type(error).__name__}")
        continue
    found[name] = (str(result.dtype), float(result.max()))
    print(f"{name}: {result.dtype}, {result.min():.4g} to {result.max():.4g}")
stated = found["RandomGamma"][0] == "float64" and found["RandomGamma"][1] > 1e7
stated = stated and all(found[name] == ("float32", 255.0) for name in ("Downscale", "AutoContrast"))
stated = stated and found["Posterize"] == found["Equalize"] == "raises"
stated = stated and found["InvertImg"] == ("uint16", 65535.0)
sys.exit(0 if stated else f"CHANGED: {found}")
PY
