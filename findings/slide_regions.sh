#!/usr/bin/env bash
# tiffslide and OpenSlide read different pixels at lower levels of one slide.
# Expected: tiffslide calls itself a drop-in replacement for openslide-python; read_region takes the
#   location in pixels of level 0, and both return the same region of any level.
# Happens: they agree where the location is a multiple of the level's downsampling. Elsewhere OpenSlide
#   shifts by the fraction and blends neighbouring pixels, tiffslide takes whole pixels. On noise values
#   differ by more than 100 of 255.
# Matters: tiles drawn at random locations are slightly smoothed with one reader and not with the other,
#   a difference between the training of an encoder and its use that no metadata record.
# Run 2026-11-29 with openslide-python 1.4.7, openslide-bin 4.0.1.2, tiffslide 3.0.1, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  openslide-python==1.4.7 openslide-bin==4.0.1.2 tiffslide==3.0.1 zarr==3.1.6 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import openslide
import tifffile
import tiffslide

print("OpenSlide", openslide.__library_version__, "tiffslide", tiffslide.__version__)
noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype="uint8")
with tifffile.TiffWriter("x.tif") as out:
    for step in (1, 2, 4):
        kind = dict(subfiletype=1) if step > 1 else {}
        out.write(noise[::step, ::step], photometric="rgb", tile=(256, 256), **kind)
c_reader, python_reader = openslide.OpenSlide("x.tif"), tiffslide.TiffSlide("x.tif")
print("downsampling", c_reader.level_downsamples, python_reader.level_downsamples)
difference = {}
for level, place in ((0, 101), (1, 100), (1, 101), (2, 100), (2, 101), (2, 102)):
    read = []
    for slide in (c_reader, python_reader):
        tile = slide.read_region((place, place), level, (64, 64)).convert("RGB")
        read.append(np.asarray(tile).astype(int))
    difference[level, place] = abs(read[0] - read[1]).max()
    print(f"level {level}, location {place}: values differ by up to {difference[level, place]}")
aligned = all(difference[case] == 0 for case in ((0, 101), (1, 100), (2, 100)))
shifted = all(difference[case] > 100 for case in ((1, 101), (2, 101)))
sys.exit(0 if aligned and shifted else f"CHANGED: {difference}")
PY
