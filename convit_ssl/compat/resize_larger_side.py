"""The transform ``ImgPilResizeLargerSide``.

Broke: every call raises ``AttributeError: 'ImgPilResizeLargerSide' object has no attribute
    'resize_long'``: the constructor never sets it.
Since: always
Upstream: vissl/data/ssl_transforms/img_pil_resize_larger_side.py:29
Goes when: the constructor sets it.
"""

from __future__ import annotations

from types import ModuleType


def apply(module: ModuleType) -> None:
    """Resize the larger side, as the class documents."""
    if not hasattr(module.ImgPilResizeLargerSide, "resize_long"):
        module.ImgPilResizeLargerSide.resize_long = True
