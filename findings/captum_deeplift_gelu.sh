#!/usr/bin/env bash
# captum's DeepLift on a network with GELU is input times gradient, without a warning.
# Expected: DeepLIFT distributes the difference of the outputs over the inputs (its summation-to-delta
#   property), or refuses what it has no rule for. The documentation warns of functional and reused
#   activations.
# Happens: nn.GELU has no rule either, also as a module that is used once: attributions equal
#   (input - baseline) x gradient, and do not add up. With nn.ReLU they do. GuidedBackprop likewise
#   returns the plain gradient. Nothing is said.
# Matters: every transformer uses GELU, so "DeepLift" maps of a ViT are another method's.
# Run 2026-11-29 with captum 0.9.0, torch 2.13.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  captum==0.9.0 torch==2.13.0 numpy==2.4.6 || exit 2

venv/bin/python -I - <<'PY'
import sys
import warnings
from importlib.metadata import version

import torch
from captum.attr import DeepLift, GuidedBackprop, InputXGradient, Saliency
from torch import nn

print("captum", version("captum"), "torch", torch.__version__)
torch.manual_seed(0)
inputs = torch.randn(16, 8)
found = {}
for activation in (nn.ReLU, nn.GELU):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lift, delta = DeepLift(model).attribute(inputs, return_convergence_delta=True)
        guided = GuidedBackprop(model).attribute(inputs)
    plain = torch.allclose(lift, InputXGradient(model).attribute(inputs), atol=1e-6)
    gradient = torch.allclose(guided, Saliency(model).attribute(inputs, abs=False), atol=1e-6)
    told = any("gelu" in str(warning.message).lower() for warning in caught)
    found[activation.__name__] = (plain, gradient, delta.abs().max().item() > 1e-3, told)
    print(f"{activation.__name__}: DeepLift is input x gradient: {plain}, misses the difference by up to "
          f"{delta.abs().max().item():.5f}; GuidedBackprop is the gradient: {gradient}; warned: {told}")
stated = {"ReLU": (False, False, False, False), "GELU": (True, True, True, False)}
sys.exit(0 if found == stated else f"CHANGED: {found}")
PY
