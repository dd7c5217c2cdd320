"""Aliases that numpy has removed.

Broke: ``np.float``, ``np.int`` and ``np.in1d`` raise AttributeError.
Since: numpy 1.24 (``np.float``, ``np.int``), numpy 2.4 (``np.in1d``)
Upstream: vissl/meters/mean_ap_meter.py:70, vissl/utils/svm_utils/evaluate.py:43,
    vissl/utils/instance_retrieval_utils/rmac.py:102,
    vissl/utils/instance_retrieval_utils/evaluate.py:133,
    classy_vision/dataset/transforms/autoaugment.py:170
Goes when: VISSL and ClassyVision use the builtin types and ``np.isin``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

BUILTINS: dict[str, type] = {
    "float": float,
    "int": int,
    "bool": bool,
    "object": object,
    "str": str,
    "complex": complex,
}


def apply(module: ModuleType) -> None:
    """Add the missing names to ``numpy``."""
    # vars(), since numpy's module __getattr__ warns or raises for old names
    names: dict[str, Any] = dict(BUILTINS)
    if "in1d" not in vars(module):
        names["in1d"] = in1d
    for name, value in names.items():
        if name not in vars(module):
            setattr(module, name, value)


def in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """``np.isin`` flattened, as ``np.in1d`` was."""
    import numpy as np

    return np.isin(np.asarray(ar1).ravel(), ar2, assume_unique=assume_unique, invert=invert)
