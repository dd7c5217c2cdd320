#!/usr/bin/env bash
# scikit-learn's normalize turns float16 features into rows of zeros, without a warning.
# Expected: rows of unit length, as cosine similarity on the same array has them; float16 is accepted and
#   comes back as float16.
# Happens: the squares are summed in float16, whose largest number is 65,504. A row longer than about 256 has
#   an infinite norm, and the row is divided by it. cosine_similarity of the same array has a diagonal of 1.
# Matters: features of half-precision networks are stored as float16, and rows of 768 channels with a standard
#   deviation of 10 are that long. A kNN on the result finds that all images are equally near.
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
import warnings

import numpy as np
import sklearn
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import normalize

warnings.simplefilter("error", UserWarning)
print("scikit-learn", sklearn.__version__, "numpy", np.__version__)
draw = np.random.default_rng(0)
found = {}
for scale in (5, 12):
    features = (draw.normal(size=(100, 768)) * scale).astype(np.float16)
    made = normalize(features)
    lengths = np.linalg.norm(made.astype(np.float64), axis=1)
    whole = normalize(features.astype(np.float32))
    found[scale] = (
        str(made.dtype),
        round(float(lengths.max()), 2),
        round(float(np.linalg.norm(whole, axis=1).min()), 2),
        round(float(cosine_similarity(features).diagonal().min()), 2),
    )
    print(f"standard deviation {scale}: {found[scale]} (dtype, longest row, in float32, cosine)")
stated = found == {5: ("float16", 1.0, 1.0, 1.0), 12: ("float16", 0.0, 1.0, 1.0)}
sys.exit(0 if stated else f"CHANGED: {found}")
PY
