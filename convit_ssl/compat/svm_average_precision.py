"""VISSL's SVM evaluation.

Broke: ``ValueError: setting an array element with a sequence``: average precisions are arrays
    with one element, and such an array is no longer taken for a number.
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
    """An array whose single elements may be set from arrays with one element."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """As ``ndarray``'s, with the number taken out of a one-element array first."""
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
    """Let the module's tables of results take one-element arrays."""
    if module.np is np:
        module.np = NumpyWithTables()  # type: ignore[attr-defined]
