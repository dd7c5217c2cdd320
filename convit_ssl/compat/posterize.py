"""AutoAugment's and RandAugment's posterize with 0 bits.

Broke: occasional ``ValueError: bits must be between or equal to 1 and 8`` in a loader worker:
    ``Posterize`` and ``PosterizeIncreasing`` ask for 0 bits at one end of their range, which
    timm's ``rand-m9-mstd0.5-inc1`` reaches through its noise.
Since: Pillow 13
Upstream: vissl/data/ssl_transforms/rand_auto_aug.py:275, timm/data/auto_augment.py:161
Goes when: both keep at least one bit, or Pillow takes 0 again.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def posterize(img: Any, bits_to_keep: int, **_: Any) -> Any:
    """Keep the highest bits of each channel; 0 bits give a black image, as before Pillow 13.

    ``img`` is a PIL image of mode L or RGB; the signature is that of the table's other ops.
    """
    from PIL import ImageOps

    if bits_to_keep >= 8:
        return img
    if bits_to_keep < 1:
        return img.point([0] * 256 * len(img.getbands()))
    return ImageOps.posterize(img, bits_to_keep)


def apply(module: ModuleType) -> None:
    """Replace ``posterize`` in the table of ops."""
    upstream = module.posterize
    module.posterize = posterize  # type: ignore[attr-defined]
    for name, op in module.NAME_TO_OP.items():
        if op is upstream:
            module.NAME_TO_OP[name] = posterize
