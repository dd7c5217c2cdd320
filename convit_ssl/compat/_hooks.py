"""Run hooks when a module is imported, now or later.

One finder in front of ``sys.meta_path`` watches for the registered names. For those it lets
the other finders do their work and wraps ``exec_module`` of the loader they return, for this
one import; nothing stays behind on the module. Unregistered names cost two dict look-ups.
A second finder, at the end, supplies modules that no other finder knows.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

After = Callable[[ModuleType], None]
During = Callable[[ModuleType], "contextlib.AbstractContextManager[None]"]
Fill = Callable[[ModuleType], None]

_after: dict[str, list[After]] = {}
_during: dict[str, list[During]] = {}
_provided: dict[str, Fill] = {}
_lock = threading.RLock()
_searching = threading.local()


def after_import(name: str, hook: After) -> None:
    """Call ``hook(module)`` when the module ``name`` has been executed, now if it has been.

    Registering the same hook for the same name again does nothing. A reload of the module
    runs the hook again, so hooks must be safe to call twice.
    """
    if not _register(_after, name, hook):
        return
    module = sys.modules.get(name)
    if module is None:
        return
    if getattr(module.__spec__, "_initializing", False):
        # Another thread is in the middle of it: this waits for that thread.
        module = importlib.import_module(name)
    hook(module)


def during_import(name: str, hook: During) -> None:
    """Execute the module ``name``, when it is imported, inside ``with hook(module)``."""
    _register(_during, name, hook)


def provide_module(name: str, fill: Fill) -> None:
    """Let ``import name`` succeed if no module of that name is installed.

    The new module is empty; ``fill(module)`` puts its contents in.
    """
    with _lock:
        _provided.setdefault(name, fill)
        if _stub_finder not in sys.meta_path:
            sys.meta_path.append(_stub_finder)


def _register(table: dict[str, list[Any]], name: str, hook: Any) -> bool:
    with _lock:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        if hook in table.get(name, ()):
            return False
        # A new list, so that a thread that is iterating over the old one is not disturbed.
        table[name] = [*table.get(name, ()), hook]
    return True


def _wrap_exec(loader: Any, name: str) -> Any:
    # A copy: some finders hand the same loader object to every import.
    wrapped = copy.copy(loader)

    def exec_module(module: ModuleType) -> None:
        # From here on the module shows the loader it would have had without us.
        module.__loader__ = loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        with contextlib.ExitStack() as stack:
            for during in _during.get(name, ()):
                stack.enter_context(during(module))
            loader.exec_module(module)
        for after in _after.get(name, ()):
            after(module)

    wrapped.exec_module = exec_module
    return wrapped


class HookFinder:
    """Finds nothing itself; wraps what the other finders return for registered names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Called by the import system; see ``importlib.abc.MetaPathFinder``."""
        if fullname not in _after and fullname not in _during:
            return None
        # The other finders may ask sys.meta_path, and so us, for the same name again.
        busy: set[str] = _searching.__dict__.setdefault("names", set())
        if fullname in busy:
            return None
        busy.add(fullname)
        try:
            spec = _ask_the_others(fullname, path, target)
        finally:
            busy.discard(fullname)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _wrap_exec(spec.loader, fullname)
        return spec


def _ask_the_others(
    fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> importlib.machinery.ModuleSpec | None:
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        if find is None or isinstance(finder, HookFinder):
            continue
        spec: importlib.machinery.ModuleSpec | None = find(fullname, path, target)
        if spec is not None:
            return spec
    return None


class StubFinder:
    """Last on ``sys.meta_path``: asked only where no other finder knows the name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Called by the import system; see ``importlib.abc.MetaPathFinder``."""
        if fullname not in _provided:
            return None
        loader: Any = self
        return importlib.machinery.ModuleSpec(fullname, loader, origin=__name__)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Called by the import system: an ordinary empty module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Called by the import system to fill the module."""
        _provided[module.__name__](module)


_finder = HookFinder()
_stub_finder = StubFinder()
