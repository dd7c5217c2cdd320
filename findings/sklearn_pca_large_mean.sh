#!/usr/bin/env bash
# scikit-learn's PCA finds wrong components of float32 features with a large mean, by its default solver.
# Expected: solver 'auto' chooses by speed; the components are those of 'full', up to rounding.
# Happens: with 2,000 rows of 64 columns 'auto' is 'covariance_eigh', which takes the product of the mean with
#   itself off an uncentred product, in float32. With a mean of 100 and standard deviations of 0.5 and less,
#   the first variance is more than twice the right one, and the first component points elsewhere.
#   There is no warning.
# Matters: features after a ReLU, and raw pixels from 0 to 255, have such means. The columns that PCA is to drop
#   first are the ones it takes.
# Run 2026-12-01 with scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  scikit-learn==1.9.1 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import numpy as np
import sklearn
from sklearn.decomposition import PCA

print("scikit-learn", sklearn.__version__, "numpy", np.__version__)
draw = np.random.default_rng(0)
plain = draw.normal(size=(2000, 64)) * np.linspace(1, 0.01, 64) * 0.5
found = {}
for mean in (0, 100):
    features = (plain + mean).astype(np.float32)
    auto, full = PCA().fit(features), PCA(svd_solver="full").fit(features)
    cosine = abs(float(auto.components_[0] @ full.components_[0]))
    ratio = float(auto.explained_variance_[0] / full.explained_variance_[0])
    found[mean] = (cosine, ratio)
    print(f"mean {mean}: first component against that of 'full': |cos| {cosine:.2f}, "
          f"variance {ratio:.2f} times")
right = found[0][0] > 0.999 and abs(found[0][1] - 1) < 1e-3
wrong = found[100][0] < 0.9 and found[100][1] > 1.5
sys.exit(0 if right and wrong else f"CHANGED: {found}")
PY
