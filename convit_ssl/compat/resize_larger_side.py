"""The transform ``ImgPilResizeLargerSide``.

Broke: every use is ``AttributeError: 'ImgPilResizeLargerSide' object has no attribute
    'resize_long'``: the constructor never sets what the call asks for.
Since: always
Upstream: vissl/data/ssl_transforms/img_pil_resize_larger_side.py:29
Goes when: the constructor sets it.
"""

from __future__ import annotations

from types import ModuleType


def apply(module: ModuleType) -> None:
    """Resize the larger side, as the class says it does."""
    if not hasattr(module.ImgPilResizeLargerSide, "resize_long"):
        module.ImgPilResizeLargerSide.resize_long = True
