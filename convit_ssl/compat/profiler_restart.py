"""VISSL's profiler.

Broke: the hook keeps calling ``step()`` on the stopped profiler, which starts it again: the
    training ends normally, then the process crashes with a segmentation fault. The trace is
    empty, too, because torch now drops the events of a cycle before the hook asks for them.
Since: seen with torch 2.13
Upstream: vissl/utils/profiler.py:31 (called from vissl/hooks/profiling_hook.py:124)
Goes when: the hook stops stepping once it has written the results, and asks torch to keep them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Make ``Profiler.step`` do nothing once it has ended, and keep the events until then."""
    wrap(module.Profiler, "step", _while_started)
    wrap(module.Profiler, "_enter_actions", _keeping_events)


def _while_started(step: Callable[..., Any]) -> Callable[..., Any]:
    def step_if_started(self: Any) -> None:
        if self.started:
            step(self)

    return step_if_started


def _keeping_events(enter_actions: Callable[..., Any]) -> Callable[..., Any]:
    def enter(self: Any) -> None:
        self.profiler.acc_events = True
        enter_actions(self)

    return enter
