"""``Image.fromarray(array, mode=...)`` with a mode that is not the array's.

Broke: ``TypeError: Cannot handle this data type`` or ``ValueError: Invalid mode for data type``
    where Pillow once read the array's bytes as pixels of the mode asked for, as VISSL's own
    multi-crop test does with floats as ``RGB``.
Since: Pillow 13
Upstream: tests/test_transforms.py (test_img_pil_to_multicrop) of VISSL 0.1.6
Goes when: VISSL's test-suite builds its images from uint8 arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from convit_ssl.compat._patch import wrap


def apply(module: ModuleType) -> None:
    """Let ``PIL.Image.fromarray`` fall back on the old reading, with a warning."""
    wrap(module, "fromarray", _tolerant)


def _tolerant(fromarray: Callable[..., Any]) -> Callable[..., Any]:
    def old_fromarray(obj: Any, mode: str | None = None) -> Any:
        try:
            return fromarray(obj, mode)
        except (TypeError, ValueError):
            shape = obj.__array_interface__["shape"]
            if mode is None or len(shape) < 2:
                raise
        warnings.warn(
            f"the bytes of a {obj.dtype} array are read as pixels of mode {mode}, as Pillow "
            "did before version 13: give fromarray() an array of that mode's own type instead",
            stacklevel=2,
        )
        from PIL import Image

        return Image.frombytes(mode, (shape[1], shape[0]), obj.tobytes()[: _size(mode, shape)])

    return old_fromarray


def _size(mode: str, shape: tuple[int, ...]) -> int:
    from PIL import ImageMode

    descriptor = ImageMode.getmode(mode)
    item = int(descriptor.typestr[2:])
    return shape[0] * shape[1] * len(descriptor.bands) * item
