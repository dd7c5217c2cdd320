"""torchvision whose build does not match torch's.

Broke: ``import torchvision`` (so ``import timm``) fails with ``operator torchvision::nms does
    not exist`` when its compiled operators cannot be loaded, as with a ``+cpu`` torch beside
    the CUDA torchvision of the package index.
Since: torchvision 0.16
Upstream: torchvision/_meta_registrations.py:163
Goes when: torchvision guards these registrations with ``_has_ops()`` like their neighbours.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

MISSING = re.compile(r"operator torchvision::\w+ does not exist")


@contextlib.contextmanager
def around(module: ModuleType) -> Iterator[None]:
    """Skip registering fake kernels for operators that torchvision could not load.

    Only that one error, only for ``torchvision::`` operators, only while
    ``torchvision._meta_registrations`` is imported. Does nothing if the operators were loaded.
    """
    import torch
    from torchvision.extension import _has_ops

    if _has_ops():
        yield
        return
    register_fake = torch.library.register_fake

    def tolerant(op: Any, *args: Any, **kwargs: Any) -> Any:
        result = register_fake(op, *args, **kwargs)
        if not (isinstance(op, str) and op.startswith("torchvision::") and callable(result)):
            return result
        return _tolerate(result)

    torch.library.register_fake = tolerant
    try:
        yield
    finally:
        torch.library.register_fake = register_fake


def _tolerate(register: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(kernel: Any) -> Any:
        try:
            return register(kernel)
        except RuntimeError as error:
            if not MISSING.search(str(error)):
                raise
            return kernel

    return decorate
