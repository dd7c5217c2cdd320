#!/usr/bin/env bash
# Importing torchvision imports PyTorch's compiler with it, which importing torch does not.
# Expected: torch._dynamo is imported when something is compiled; `import torchvision` costs little beside torch.
# Happens: torchvision 0.29.1 imports torch._dynamo and over a thousand other modules (sympy among them), whether or not
#   anything is compiled, on the CPU as on a GPU.
# Matters: it is most of what a small program waits for before its first image, in each worker process that is
#   spawned; and tools that ask whether torch._dynamo is loaded to learn whether a program compiles are told yes.
# Run 2026-11-30 with torch 2.14.1, torchvision 0.29.1, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torch==2.14.1 torchvision==0.29.1 || exit 2

venv/bin/python -I - <<'PY'
import sys
import time

import torch

before, loaded = len(sys.modules), "torch._dynamo" in sys.modules
start = time.process_time()
import torchvision

spent, more = time.process_time() - start, len(sys.modules) - before
print(f"torch {torch.__version__} alone: torch._dynamo loaded: {loaded}")
print(f"torchvision {torchvision.__version__}: {more} more modules in {spent:.1f} s of processor time, "
      f"torch._dynamo loaded: {'torch._dynamo' in sys.modules}, sympy: {'sympy' in sys.modules}")
as_stated = not loaded and "torch._dynamo" in sys.modules and more > 700
sys.exit(0 if as_stated else "CHANGED: torch loads it, or torchvision does not")
PY
