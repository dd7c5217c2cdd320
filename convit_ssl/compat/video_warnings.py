"""Importing ClassyVision's video transforms.

Broke: every process of a run, loader workers too, prints two warnings that
    ``torchvision.transforms._transforms_video`` is deprecated, although no video is used.
Since: torchvision 0.12
Upstream: classy_vision/dataset/transforms/__init__.py:14,
    classy_vision/dataset/transforms/util_video.py:12
Goes when: ClassyVision imports ``torchvision.transforms``; a stand-in is needed sooner if
    torchvision removes these modules first.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def around(module: ModuleType) -> Iterator[None]:
    """Import ``module`` without its deprecation warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=rf"The '{module.__name__}' module is deprecated")
        yield
