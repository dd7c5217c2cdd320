#!/usr/bin/env bash
# timm and torchvision number the classes of one folder differently.
# Expected: torchvision's ImageFolder documents that classes are sorted by name; timm's readers for the
#   same layout (root/class/image) give the same numbers, since its checkpoints and tools interoperate.
# Happens: timm sorts "naturally": 1, 2, 10 where torchvision has 1, 10, 2. With deeper folders timm
#   names the class after the last folder, torchvision after the first.
# Matters: classes are often numbered or dated. A head or a k-NN index made with one loader and
#   evaluated with the other scores near chance, although features and images are right.
# Run 2026-11-29 with timm 1.0.31, torchvision 0.28.0, torch 2.13.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  timm==1.0.31 torch==2.13.0 torchvision==0.28.0 pillow==13.0.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import os
import sys
import types

# Only Python code is used: torchvision's operators need not match the build of torch.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("unused")
import timm
import torchvision
from PIL import Image
from timm.data import create_dataset

print("timm", timm.__version__, "torchvision", torchvision.__version__)


def numbers(root, folders):
    for folder in folders:
        os.makedirs(f"{root}/{folder}")
        Image.new("RGB", (8, 8)).save(f"{root}/{folder}/image.png")
    by_timm = create_dataset("", root).reader.class_to_idx
    by_torchvision = torchvision.datasets.ImageFolder(root).class_to_idx
    print(f"{folders}: timm {by_timm}, torchvision {by_torchvision}")
    return by_timm, by_torchvision


numbered = numbers("numbered", ["1", "2", "10"])
nested = numbers("nested", ["cat", "dog/2026"])
stated = numbered == ({"1": 0, "2": 1, "10": 2}, {"1": 0, "10": 1, "2": 2})
stated = stated and nested == ({"2026": 0, "cat": 1}, {"cat": 0, "dog": 1})
sys.exit(0 if stated else "CHANGED")
PY
