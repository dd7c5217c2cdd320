"""A copy of Classy Vision's model wrapper holds a model.

Broke: ``AttributeError: 'super' object has no attribute '__getattr__'`` from ``copy.deepcopy`` of
    a model, as a teacher is made: the wrapper passes ``__getstate__`` on to the model it wraps,
    whose state the copy then takes for its own.
Since: torch 2, whose modules have a ``__getstate__``, on Python 3.10, whose objects have none
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
