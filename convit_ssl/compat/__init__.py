"""What lets VISSL 0.1.6 (2021) run on today's Python, torch, numpy and Pillow.

One file per upstream breakage. ``install()`` only registers them: each is loaded and applied
when the module it mends is imported. Call it before the first import of VISSL.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from functools import lru_cache
from types import ModuleType

from convit_ssl.compat._hooks import After, During, after_import, during_import
from convit_ssl.errors import UserError

__all__ = ["AFTER", "AROUND", "install", "require_vissl"]

# Shim (a module of this package with apply(module)) -> the modules it mends, once imported.
AFTER: dict[str, tuple[str, ...]] = {
    "collections_aliases": ("collections",),
    "numpy_aliases": ("numpy",),
    "kinetics400": ("torchvision.datasets.kinetics",),
}
# Shim (with around(module), a context manager) -> the modules it mends while they are imported.
AROUND: dict[str, tuple[str, ...]] = {
    "torchvision_ops": ("torchvision._meta_registrations",),
}


@lru_cache(maxsize=None)
def _after_hook(shim: str) -> After:
    def apply(module: ModuleType) -> None:
        importlib.import_module(f"{__name__}.{shim}").apply(module)

    return apply


@lru_cache(maxsize=None)
def _around_hook(shim: str) -> During:
    def around(module: ModuleType) -> contextlib.AbstractContextManager[None]:
        manager: contextlib.AbstractContextManager[None] = importlib.import_module(
            f"{__name__}.{shim}"
        ).around(module)
        return manager

    return around


def install() -> None:
    """Register every shim. Idempotent; imports nothing beyond the standard library."""
    for shim, targets in AFTER.items():
        for target in targets:
            after_import(target, _after_hook(shim))
    for shim, targets in AROUND.items():
        for target in targets:
            during_import(target, _around_hook(shim))
    from convit_ssl.compat import pkg_resources_stub

    pkg_resources_stub.offer()


def require_vissl() -> None:
    """Say how VISSL is installed when it is not there.

    Raises:
        UserError: VISSL cannot be found.
    """
    if "vissl" in sys.modules or importlib.util.find_spec("vissl") is not None:
        return
    raise UserError(
        "VISSL is not installed. Its metadata pins packages of 2021 that no longer build, so "
        "it is installed without them, after the ordinary requirements:\n"
        "    pip install --no-deps vissl==0.1.6"
    )
