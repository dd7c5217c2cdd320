"""Trunks in and out: load any checkpoint, write for other libraries, audit what is inside.

``convit_ssl.export(weights, to="timm")`` calls this package; see `convit_ssl.api.export`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from convit_ssl.export.load import Provenance, load_network, load_trunk, reading_of, resized
from convit_ssl.models.fingerprint import weights_fingerprint

__all__ = [
    "Provenance",
    "load_network",
    "load_trunk",
    "reading_of",
    "resized",
    "weights_fingerprint",
]


class _Callable(ModuleType):
    """The package is also the function of the interface that has its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return importlib.import_module("convit_ssl.api").export(*args, **options)


sys.modules[__name__].__class__ = _Callable
