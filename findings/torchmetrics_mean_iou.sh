#!/usr/bin/env bash
# torchmetrics' MeanIoU is not the mean IoU of segmentation benchmarks.
# Expected: the mIoU of PASCAL VOC, Cityscapes and ADE20K: intersections and unions of a class are added
#   up over all images, then divided. MulticlassJaccardIndex of the same package does that.
# Happens: torchmetrics.segmentation.MeanIoU takes the IoU of each image first and averages over images,
#   and over the batches as they come. One false pixel of a class that an image does not have costs half
#   of that image's score: here 0.66 against 0.99.
# Matters: figures of dense evaluation are not comparable with published ones, and which is higher
#   depends on how rare the classes are, so that even the order of two encoders can change.
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
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
truth = torch.zeros(2, 10, 10, dtype=torch.long)
truth[1] = 1
predicted = truth.clone()
predicted[0, 0, 0] = 1  # 1 of 200 pixels is wrong
by_image = MeanIoU(num_classes=2, input_format="index")(predicted, truth).item()
by_data_set = MulticlassJaccardIndex(num_classes=2)(predicted, truth).item()
expected = ((99 / 100) + (100 / 101)) / 2
print(f"MeanIoU {by_image:.4f}, MulticlassJaccardIndex {by_data_set:.4f}, by hand {expected:.4f}")
stated = abs(by_data_set - expected) < 1e-4 and by_image < 0.7
sys.exit(0 if stated else "CHANGED")
PY
