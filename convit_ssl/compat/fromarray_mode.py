"""``Image.fromarray(array, mode=...)`` with a mode that is not the array's.

Broke: ``TypeError: Cannot handle this data type`` or ``ValueError: Invalid mode for data type``
    where Pillow used to read the array's bytes as pixels of the requested mode. VISSL's own
    multi-crop test does that with floats as ``RGB``.
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
    """Let ``PIL.Image.fromarray`` fall back to the old behaviour, with a warning."""
    wrap(module, "fromarray", _tolerant)


def _tolerant(fromarray: Callable[..., Any]) -> Callable[..., Any]:
    def old_fromarray(obj: Any, mode: str | None = None) -> Any:
        try:
            return fromarray(obj, mode)
        except (TypeError, ValueError):
            image = None if mode is None else _bytes_as_pixels(obj, mode)
            if image is None:
                raise
        warnings.warn(
            f"the bytes of a {obj.dtype} array are read as pixels of mode {mode}, as Pillow "
            "did before version 13: give fromarray() an array of that mode's own type instead",
            stacklevel=2,
        )
        return image

    return old_fromarray


def _bytes_as_pixels(array: Any, mode: str) -> Any:
    """An image of the array's height and width, or None if it has too few bytes for that."""
    from PIL import Image, ImageMode

    shape = array.__array_interface__["shape"]
    try:
        kind = ImageMode.getmode(mode)
    except KeyError:
        return None
    if len(shape) < 2:
        return None
    size = shape[0] * shape[1] * len(kind.bands) * int(kind.typestr[2:])
    content = array.tobytes()[:size]
    if len(content) < size:
        return None
    return Image.frombytes(mode, (shape[1], shape[0]), content)
