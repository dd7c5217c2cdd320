"""Replace upstream functions, including references that other modules already hold."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

MARK = "_convit_ssl_compat"
UPSTREAM = ("vissl.", "classy_vision.", "tools.")


def replace(owner: Any, name: str, new: Any) -> None:
    """Set ``owner.name`` to ``new``; a second call changes nothing.

    Modules of VISSL and ClassyVision that imported the function with ``from ... import`` before
    the shims were installed get the new one too.

    Raises:
        AttributeError: ``owner`` has nothing of that name, so upstream has changed.
    """
    old = getattr(owner, name)
    if old is new or getattr(old, MARK, False):
        return
    setattr(owner, name, new)
    if not isinstance(owner, ModuleType):
        return
    for module in list(sys.modules.values()):
        module_name = getattr(module, "__name__", "")
        if module_name.startswith(UPSTREAM) and vars(module).get(name) is old:
            setattr(module, name, new)


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Set ``owner.name`` to ``make(owner.name)``, named and documented as the original.

    Raises:
        AttributeError: ``owner`` has nothing of that name, so upstream has changed.
    """
    old = getattr(owner, name)
    if getattr(old, MARK, False):
        return
    new: Any = functools.wraps(old)(make(old))
    setattr(new, MARK, True)
    if isinstance(owner, type) and isinstance(vars(owner).get(name), classmethod | staticmethod):
        # ``old`` is bound already.
        new = staticmethod(new)
    replace(owner, name, new)
