"""Names of ``collections.abc`` under ``collections``, their former place.

Broke: ``collections.MutableMapping`` is gone.
Since: Python 3.10
Upstream: vissl/utils/misc.py:373, classy_vision/generic/util.py:370,
    classy_vision/hooks/visdom_hook.py:89
Goes when: VISSL and ClassyVision write ``collections.abc.MutableMapping``.
"""

from __future__ import annotations

import collections.abc
from types import ModuleType

NAMES = ("Callable", "Iterable", "Mapping", "MutableMapping", "MutableSequence", "Sequence", "Set")


def apply(module: ModuleType) -> None:
    """Add the missing names to ``collections``."""
    for name in NAMES:
        if name not in vars(module):
            setattr(module, name, getattr(collections.abc, name))
