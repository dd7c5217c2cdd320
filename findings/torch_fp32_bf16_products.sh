#!/usr/bin/env bash
# Allowing bfloat16 in PyTorch's float32 products on a CPU rounds nothing without AMX, and slows attention down.
# Expected: torch.backends.mkldnn.matmul.fp32_precision = "bf16" trades digits for speed: products of float32
#   matrices with errors near 2e-3, and scaled_dot_product_attention at least as fast as before.
# Happens, on a CPU with AVX-512 and without AMX: the products go to oneDNN, which computes them in float32 (error
#   4e-7, as before; on AMD at twice the speed of MKL), and the fused attention kernel, which multiplies small
#   blocks, takes several times as long for short sequences, forward and backward.
# Matters: the switch is a free gain for linear layers there and a loss for attention over few tokens, such as a
#   vision transformer's on small images; and a test of "accuracy in bfloat16" by this switch tests nothing.
# Run 2026-11-30 with torch 2.14.1, numpy 2.4.6, Python 3.11, on an AMD EPYC with AVX-512.
set -euo pipefail
grep -q avx512f /proc/cpuinfo || { echo "not run: needs a CPU with AVX-512"; exit 2; }
grep -q amx_bf16 /proc/cpuinfo && { echo "not run: needs a CPU without AMX"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torch==2.14.1 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

torch.set_num_threads(1)
torch.manual_seed(0)
products = torch.backends.mkldnn.matmul
left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
exact = left.double() @ right.double()
tokens = torch.randn(16, 9, 37, 48, requires_grad=True)


def attend():
    scaled_dot_product_attention(tokens, tokens, tokens).sum().backward()


def milliseconds(work):
    work()
    spent = []
    for _ in range(9):
        start = time.thread_time()
        work()
        spent.append(time.thread_time() - start)
    return 1e3 * min(spent)


found = {}
for precision in ("ieee", "bf16"):
    products.fp32_precision = precision
    error = float((left @ right - exact).norm() / exact.norm())
    found[precision] = error, milliseconds(lambda: left @ right), milliseconds(attend)
    print(f"torch {torch.__version__}, {precision}: error {error:.1e}, product "
          f"{found[precision][1]:.1f} ms, attention {found[precision][2]:.1f} ms")
as_stated = found["bf16"][0] < 2e-6 and found["bf16"][2] > 2 * found["ieee"][2]
sys.exit(0 if as_stated else "CHANGED: it rounds, or attention is not slower")
PY
