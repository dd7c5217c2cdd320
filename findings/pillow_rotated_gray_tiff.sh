#!/usr/bin/env bash
# Pillow scrambles uncompressed grey TIFFs whose orientation tag asks for a quarter turn.
# Expected: pixels as stored, since Pillow leaves the tag to ImageOps.exif_transpose for JPEG and PNG, or
#   an upright image. (TIFFs are turned on load, and the tag is removed.)
# Happens: for orientation 5-8 the width and height are swapped before the pixels are mapped from the
#   file, so rows are cut at the wrong length, and then turned: a sheared image, without an error.
#   The same image in RGB, or compressed, or opened from a file object, is turned correctly.
# Matters: cameras on microscopes and phones write the tag; some images of a folder become stripes.
#   A loader must also not rotate TIFFs a second time, as it has to for JPEG.
# Run 2026-11-29 with Pillow 13.0.0, tifffile 2026.3.3, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import io
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__)
grey = np.arange(40 * 64).astype("uint16").reshape(40, 64).astype("uint8")
turned = {5: grey.T, 6: np.rot90(grey, -1), 7: grey[::-1, ::-1].T, 8: np.rot90(grey)}


def as_read(source):
    with Image.open(source) as image:
        return np.asarray(image)


state = {"path": [], "file object": [], "compressed": [], "rgb": []}
for orientation, expected in turned.items():
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite("x.tif", grey, extratags=tags)
    state["path"].append(np.array_equal(as_read("x.tif"), expected))
    memory = io.BytesIO(open("x.tif", "rb").read())
    state["file object"].append(np.array_equal(as_read(memory), expected))
    print(f"orientation {orientation}: expected {expected.shape}, from a path {as_read('x.tif').shape}")
    with Image.open("x.tif") as image:
        print(f"  size before loading {image.size}, after {(image.load(), image.size)[1]}")
    tifffile.imwrite("z.tif", grey, extratags=tags, compression="zlib")
    state["compressed"].append(np.array_equal(as_read("z.tif"), expected))
    colour = np.stack([grey] * 3, -1)
    tifffile.imwrite("c.tif", colour, extratags=tags, photometric="rgb")
    state["rgb"].append(np.array_equal(as_read("c.tif")[..., 0], expected))
print("turned correctly:", {name: all(values) for name, values in state.items()})
wrong = [name for name, values in state.items() if not any(values)]
rest = all(all(values) for name, values in state.items() if name != "path")
sys.exit(0 if wrong == ["path"] and rest else f"CHANGED: {state}")
PY
