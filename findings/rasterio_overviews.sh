#!/usr/bin/env bash
# rasterio ignores the resampling that was asked for if the file has overviews of another kind.
# Expected: read(out_shape=..., resampling=Resampling.average) returns averages of the pixels, as its
#   documentation on resampling shows, whatever else the file contains.
# Happens: GDAL takes the nearest overview that is large enough and resamples that one. If it was built by
#   nearest neighbour (the default of gdaladdo), "average" returns single pixels: 0 here in place of 100.
# Matters: two copies of one scene, one with overviews, give different thumbnails and different low
#   resolution training images: aliased ones, from the same call.
# Run 2026-11-29 with rasterio 1.4.4, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  rasterio==1.4.4 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import warnings

import numpy as np
import rasterio
from rasterio.enums import Resampling

warnings.simplefilter("ignore")  # no geotransform: it does not matter here
print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
stripes = np.broadcast_to(np.where(np.arange(256) % 2, 200, 0).astype("uint8"), (256, 256))
with rasterio.open("x.tif", "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as out:
    out.write(stripes, 1)


def quarter(**options):
    with rasterio.open("x.tif", **options) as source:
        image = source.read(1, out_shape=(64, 64), resampling=Resampling.average)
    return sorted(set(image.ravel().tolist()))


before = quarter()
with rasterio.open("x.tif", "r+") as out:
    out.build_overviews([2, 4], Resampling.nearest)
after = quarter()
print(f"stripes of 0 and 200, a quarter of the size by average: {before}; with overviews: {after}")
sys.exit(0 if before == [100] and after in ([0], [200]) else f"CHANGED: {before}, {after}")
PY
