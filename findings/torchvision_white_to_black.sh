#!/usr/bin/env bash
# torchvision turns white into black when it converts half floats to uint8, or float32 to uint16.
# Expected: v2.functional.to_dtype(scale=True) documents that the value range is kept, so 1.0 becomes 255
#   (or 65535), or that an unsafe conversion raises, as float32 to int32 does.
# Happens: it multiplies by the maximum + 0.999. In float16 and bfloat16 255.999 is rounded to 256, in
#   float32 65535.999 to 65536, and the integer wraps: 1.0 becomes 0. bfloat16 loses 0.999 as well.
# Matters: saturated pixels of images under autocast, of reconstructions that are saved as pictures, and
#   of 16-bit microscopy that passed through float32 become holes. There is no warning.
# Run 2026-11-29 with torch 2.13.0, torchvision 0.28.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torch==2.13.0 torchvision==0.28.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import types

# Only Python code is used: torchvision's operators need not match the build of torch.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("unused")
import torch
import torchvision
from torchvision.transforms.v2.functional import to_dtype

print("torch", torch.__version__, "torchvision", torchvision.__version__)
black = set()
for source in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
    for target in (torch.uint8, torch.uint16):
        values = torch.tensor([[[0.0, 0.5, 1.0]]], dtype=source)
        result = to_dtype(values, target, scale=True).flatten().tolist()
        print(f"{source} to {target}: 0, 0.5, 1 become {result}")
        if result[2] == 0:
            black.add((source, target))
stated = {(half, t) for half in (torch.float16, torch.bfloat16) for t in (torch.uint8, torch.uint16)}
stated.add((torch.float32, torch.uint16))
sys.exit(0 if black == stated else f"CHANGED: white becomes black for {black}")
PY
