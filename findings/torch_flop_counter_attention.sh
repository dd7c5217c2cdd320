#!/usr/bin/env bash
# PyTorch's FlopCounterMode counts no operations for attention on a CPU, without a warning.
# Expected: scaled_dot_product_attention of B images, H heads, N tokens and D channels costs 4 * B * H * N * N * D
#   operations forward and twice that backward, wherever it runs; that is what is counted on a GPU's kernels
#   and for the same call written as two matrix products.
# Happens: the CPU's fused kernel, which is the default there, counts as zero, forward and backward.
# Matters: the FLOPs of a vision transformer counted on a laptop or in CI lack all of attention: a third of a ViT-S
#   at 512 pixels, and the share grows with the image. Counted under SDPBackend.MATH they are complete.
# Run 2026-11-30 with torch 2.14.1, numpy 2.4.6, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  torch==2.14.1 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import contextlib
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
tokens = torch.randn(2, 4, 64, 32, requires_grad=True)
expected = 4 * 2 * 4 * 64 * 64 * 32


def counted(backend):
    """Operations forward and backward."""
    chosen = contextlib.nullcontext() if backend is None else sdpa_kernel(backend)
    with chosen:
        with FlopCounterMode(display=False) as forward:
            found = scaled_dot_product_attention(tokens, tokens, tokens)
        with FlopCounterMode(display=False) as backward:
            found.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


default, fused, plain = (
    counted(one) for one in (None, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)
)
print(f"expected {(expected, 2 * expected)}: default {default}, fused {fused}, products {plain}")
as_stated = default == fused == (0, 0) and plain == (expected, 2 * expected)
sys.exit(0 if as_stated else "CHANGED: attention is counted differently now")
PY
