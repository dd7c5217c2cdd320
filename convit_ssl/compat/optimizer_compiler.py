"""Optimisers of PyTorch without its compiler, until something is compiled.

Broke: the first ``Optimizer.add_param_group``, ``zero_grad`` or ``step`` imports
    ``torch._dynamo``, to keep a compiler away from itself that nobody has loaded: a second before
    the first step.
Since: torch 2.1
Upstream: torch/_compile.py:51, torch/optim/optimizer.py:60
Goes when: PyTorch asks whether the compiler is loaded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def apply(module: ModuleType) -> None:
    """Patch the methods of ``torch.optim.Optimizer`` and the ``step`` of its subclasses.

    With the compiler loaded, each does what PyTorch wrote.
    """
    optimizer: type = module.Optimizer
    for name, method in list(vars(optimizer).items()):
        if _is_wrapped(method, "inner"):
            setattr(optimizer, name, _without_compiler(method, method.__wrapped__))
    for kind in _subclasses(optimizer):
        step = vars(kind).get("step")
        if _is_wrapped(step, "_use_grad"):
            kind.step = _without_compiler(step, _with_gradients(step.__wrapped__))


def _is_wrapped(method: Any, wrapper: str) -> bool:
    code = getattr(method, "__code__", None)
    return hasattr(method, "__wrapped__") and getattr(code, "co_name", "") == wrapper


def _subclasses(kind: Any) -> list[Any]:
    below: list[Any] = kind.__subclasses__()
    return [*below, *(lower for each in below for lower in _subclasses(each))]


def _without_compiler(written: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(written)
    def method(*args: Any, **kwargs: Any) -> Any:
        return (written if COMPILER in sys.modules else plain)(*args, **kwargs)

    return method


def _with_gradients(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with gradients on for a differentiable optimiser alone, as PyTorch wraps it."""

    def with_gradients(self: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return with_gradients
