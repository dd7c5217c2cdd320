#!/usr/bin/env bash
# All 16-bit images are duplicates of each other by perceptual hash.
# Expected: ImageHash takes any Pillow image and hashes its grey version, so a 16-bit PNG hashes like its
#   8-bit copy. ImageHash's and Pillow's documentation name no exception.
# Happens: Pillow's convert("L") cuts 16-bit values at 255, so nearly every pixel is white, and all images
#   that are brighter than 255 of 65535 share one hash, in every kind of hash tried.
# Matters: removing duplicates from a collection of microscopy or X-ray images deletes all but one of
#   them. (The same conversion to "L" or "RGB" turns them white in any loader.)
# Run 2026-11-29 with ImageHash 4.3.2, Pillow 13.0.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  ImageHash==4.3.2 pillow==13.0.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import imagehash
import numpy as np
import PIL
from PIL import Image

print("ImageHash", imagehash.__version__, "Pillow", PIL.__version__)
generator = np.random.default_rng(0)
shared = {}
for hashing in (imagehash.average_hash, imagehash.phash, imagehash.dhash, imagehash.whash):
    deep, shallow = set(), set()
    for _ in range(10):
        pixels = generator.integers(300, 65536, (8, 8), dtype="uint16")
        pixels = np.kron(pixels, np.ones((16, 16), "uint16"))
        Image.fromarray(pixels).save("x.png")
        with Image.open("x.png") as image:
            deep.add(str(hashing(image)))
        shallow.add(str(hashing(Image.fromarray((pixels >> 8).astype("uint8")))))
    shared[hashing.__name__] = (len(deep), len(shallow))
    print(f"{hashing.__name__}: 10 images, {len(deep)} hash in 16 bits, {len(shallow)} in 8 bits")
stated = all(deep == 1 and shallow == 10 for deep, shallow in shared.values())
sys.exit(0 if stated else f"CHANGED: {shared}")
PY
