"""Copying ClassyVision's model wrapper.

Broke: ``AttributeError: 'super' object has no attribute '__getattr__'`` when a model is copied
    with ``copy.deepcopy``, for a teacher: the wrapper forwards ``__getstate__`` to the model that
    it wraps, and the copy takes that model's state for its own.
Since: torch 2, whose modules define ``__getstate__``, on Python 3.10, whose objects do not
Upstream: classy_vision/models/classy_model.py:79
Goes when: Python 3.10 is no longer supported.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def getstate(self: Any) -> dict[str, Any]:
    """What a copy of the wrapper holds: its own attributes."""
    return dict(self.__dict__)


def apply(module: ModuleType) -> None:
    """Give the wrapper a state of its own."""
    module.ClassyModelWrapper.__getstate__ = getstate
