"""VISSL's SVM evaluation.

Broke: ``ValueError: setting an array element with a sequence``: average precisions are arrays
    with one element, which numpy no longer converts to numbers.
Since: numpy 2.4 (deprecated in 1.25)
Upstream: vissl/utils/svm_utils/svm_trainer.py:256,
    vissl/utils/svm_utils/svm_low_shot_trainer.py:176
Goes when: VISSL takes the number out of the array itself.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np


class Table(np.ndarray[Any, np.dtype[Any]]):
    """An array whose elements can be set from arrays with one element."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Like ``ndarray``'s, but unpacks a one-element array first."""
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        super().__setitem__(key, value)


class NumpyWithTables:
    """numpy for one module: ``zeros`` makes a ``Table``, everything else is numpy's."""

    def zeros(self, *args: Any, **kwargs: Any) -> Any:
        """``numpy.zeros`` as a ``Table``."""
        return np.zeros(*args, **kwargs).view(Table)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def apply(module: ModuleType) -> None:
    """Let the module's result tables accept one-element arrays."""
    if module.np is np:
        module.np = NumpyWithTables()  # type: ignore[attr-defined]
