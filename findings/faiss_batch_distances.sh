#!/usr/bin/env bash
# FAISS's exact index finds other neighbours when queries are sent together than one by one.
# Expected: IndexFlatL2 is exact, and the number of queries in a call changes its speed only.
# Happens: from 20 queries on distances are |x|^2 + |y|^2 - 2 x y in float32, which has few digits left where vectors
#   share a large mean; fewer queries are compared component by component. A vector's distance from itself is then
#   above 0, and the second neighbour another one for a third of the vectors.
# Matters: features after a ReLU or global average pooling have such means. A kNN accuracy depends on the batch
#   size of its queries. Centring the features first, which changes no distance, mends it.
# Run 2026-12-01 with faiss-cpu 1.15.1, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  faiss-cpu==1.15.1 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import faiss
import numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
draw = np.random.default_rng(0)
plain = draw.normal(size=(500, 384)) * 0.1
found = {}
for mean in (0, 30):
    vectors = (plain + mean).astype(np.float32)
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    distances, together = index.search(vectors, 2)
    single = np.concatenate([index.search(one[None], 2)[1] for one in vectors])
    exact = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    np.fill_diagonal(exact, np.inf)
    nearest = exact.argmin(1)
    found[mean] = (
        float((together[:, 1] == nearest).mean()),
        float((single[:, 1] == nearest).mean()),
        float(distances[:, 0].max()),
    )
    print(f"mean {mean}: nearest other vector right for {found[mean][0]:.0%} together, "
          f"{found[mean][1]:.0%} one by one; largest distance from itself {found[mean][2]:.3f}")
small, large = found[0], found[30]
stated = min(small[:2]) > 0.99 and large[0] < 0.8 and large[1] > 0.95 and large[2] > 0.05
sys.exit(0 if stated else f"CHANGED: {found}")
PY
