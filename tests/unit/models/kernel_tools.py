"""Looks for the kernels on a machine that says it has a GPU; prints warnings and what was found."""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch

from convit_ssl.models import fused

cuda: Any = torch.cuda
cuda.is_available = lambda: True
cuda.get_device_capability = lambda index: (9, 0)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    found = [fused._has_kernels("cuda", 0) for _ in range(2)]
print(json.dumps([[str(warning.message) for warning in seen], found]))
