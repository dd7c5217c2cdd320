#!/usr/bin/env bash
# torchmetrics' AUROC of perfectly separated logits is 0.5 when the logits are large.
# Expected: the area under the ROC curve depends on the order of the scores only: a constant added to
#   all of them changes nothing (as in scikit-learn). The documentation says that logits are accepted.
# Happens: scores outside [0, 1] go through a sigmoid in float32, which is exactly 1 above about 17:
#   all of them tie. Shifted by 20, the AUROC falls from 1.0 to 0.5.
# Matters: similarities divided by a temperature of 0.05, sums of votes and logits of over-trained heads
#   are that large. Collapse and saturation look alike; and average precision suffers as well.
# Run 2026-11-29 with torchmetrics 1.9.0, torch 2.13.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys

import torch
import torchmetrics
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
scores = torch.arange(8.0)
found = {}
for shift in (0, 5, 20, 40):
    auroc = BinaryAUROC()(scores + shift, labels).item()
    precision = BinaryAveragePrecision()(scores + shift, labels).item()
    found[shift] = (auroc, precision)
    print(f"scores {shift} to {shift + 7}: AUROC {auroc:.3f}, average precision {precision:.3f}")
doubles = BinaryAUROC()((scores + 40).double(), labels).item()
print(f"scores 40 to 47 in float64: AUROC {doubles:.3f}")
stated = found[0] == found[5] == (1.0, 1.0) and found[20] == found[40] == (0.5, 0.25)
sys.exit(0 if stated else f"CHANGED: {found}")
PY
