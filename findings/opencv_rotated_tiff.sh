#!/usr/bin/env bash
# OpenCV cannot read a TIFF whose orientation tag asks for a quarter turn, with any flag.
# Expected: by cv.imread's documentation the image is rotated as its orientation tag says, except with
#   the flags IMREAD_IGNORE_ORIENTATION and IMREAD_UNCHANGED.
# Happens: for orientations 5-8 imread logs an internal error and returns None, also with those two
#   flags; half a turn (3) is applied even with IMREAD_UNCHANGED.
# Matters: a loader that skips what imread cannot read loses every upright photograph and keeps the
#   others: the training set is then biased by how the camera was held.
# Run 2026-11-29 with opencv-python-headless 5.0.0.93, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import cv2
import numpy as np
import tifffile

print("OpenCV", cv2.__version__)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
grey = np.arange(40 * 64).astype("uint16").reshape(40, 64)
FLAGS = {
    "colour": cv2.IMREAD_COLOR,
    "unchanged": cv2.IMREAD_UNCHANGED,
    "ignore orientation": cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
}
none, shapes = set(), {}
for orientation in range(1, 9):
    tifffile.imwrite("x.tif", grey, extratags=[(274, "H", 1, orientation, True)])
    for name, flag in FLAGS.items():
        image = cv2.imread("x.tif", flag)
        print(f"orientation {orientation}, {name}: {None if image is None else image.shape}")
        if image is None:
            none.add((orientation, name))
        elif (orientation, name) == (3, "unchanged"):
            half_turn = np.array_equal(image, grey[::-1, ::-1])
print("half a turn is applied with IMREAD_UNCHANGED:", half_turn)
stated = {(orientation, name) for orientation in range(5, 9) for name in FLAGS}
sys.exit(0 if none == stated and half_turn else f"CHANGED: None for {sorted(none)}")
PY
